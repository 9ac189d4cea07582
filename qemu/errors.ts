/** The guest stopped being usable. `consoleTail` holds the last lines of its serial console. */
export class GuestError extends Error {
  readonly consoleTail: string;

  constructor(message: string, consoleTail: string) {
    super(consoleTail === '' ? message : `${message}\n--- last lines of the guest's console ---\n${consoleTail}`);
    this.name = new.target.name;
    this.consoleTail = consoleTail;
  }
}

/** The guest's kernel reported a panic (on its console or through the pvpanic device). */
export class GuestPanicError extends GuestError {}

/** The guest did not answer within the time given: boot, agent or a command. */
export class GuestTimeoutError extends GuestError {}

/** The guest's clock runs at another speed than the host's: no time that passes in it means anything. */
export class GuestClockError extends GuestError {}

/** A machine's saved state did not become a running machine: it is damaged, or of another QEMU or processor. */
export class UnreadableStateError extends GuestError {}

/** QEMU ended although nobody asked it to. */
export class QemuExitError extends GuestError {}

/** Something on the host is missing or unsuitable; `remedy` is the command or step that mends it. */
export class HostSetupError extends Error {
  readonly remedy: string;

  constructor(message: string, remedy: string) {
    super(`${message}\n${remedy}`);
    this.name = new.target.name;
    this.remedy = remedy;
  }
}
