/** Objects that the driver creates, by number. */
import { ObjectRegistry } from 'ghostbus/kit';
import { CommandError, STATUS } from './command.js';

export type ObjectTable<T> = ObjectRegistry<T>;

/** Numbers from `firstId` to `lastId`; at most `limit` objects at a time. Refuses by {@link CommandError}. */
export function objectTable<T>(kind: string, firstId: number, lastId: number, limit?: number): ObjectTable<T> {
  return new ObjectRegistry<T>({
    kind,
    firstId,
    lastId,
    ...(limit === undefined ? {} : { limit }),
    refuse: (refusal, message) =>
      new CommandError(refusal === 'full' ? STATUS.LIMIT_EXCEEDED : STATUS.BAD_RESOURCE, message),
  });
}
