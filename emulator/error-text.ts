/** What was thrown, in words: code of a plugin may throw anything, not only an Error. */
export function errorText(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}
