import { runCli } from './cli.js';

/** As a program that SIGPIPE ended: whoever read our output has gone. */
const BROKEN_PIPE_STATUS = 141;

process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
  process.exitCode = BROKEN_PIPE_STATUS;
  // Ends as by any other signal: the guest and the sockets are removed.
  process.kill(process.pid, 'SIGTERM');
});

process.exit(await runCli(process.argv.slice(2)));
