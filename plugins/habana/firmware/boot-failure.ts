/** Where the boot can be told to fail, in its order. */
export const BOOT_FAILURES = ['preboot', 'boot-fit', 'u-boot', 'linux', 'error-register', 'cpu-queue'] as const;
export type BootFailure = (typeof BOOT_FAILURES)[number];
