import type { ArgumentsCamelCase, Argv, CommandModule } from 'yargs';
import { checkHost, type Finding } from '../host-checks.js';

/** Exit status when something that is needed is missing. */
const UNHEALTHY_STATUS = 1;

function options(yargs: Argv) {
  return yargs
    .usage('$0 doctor [--json]\n\nSays what this host lacks, and the command that mends it.')
    .options({ json: { type: 'boolean', default: false, description: 'Print JSON' } } as const)
    .epilogue('Exit status: 0 when everything needed is there, 1 when something is missing.');
}

type Arguments = ArgumentsCamelCase<ReturnType<typeof options> extends Argv<infer T> ? T : never>;

const MARKS = { good: 'ok     ', note: 'note   ', missing: 'MISSING' } as const;

export function formatFinding(finding: Finding): string {
  const line = `${MARKS[finding.verdict]}  ${finding.what}: ${finding.detail}`;
  return finding.remedy === undefined ? line : `${line}\n         -> ${finding.remedy}`;
}

async function handler(args: Arguments): Promise<void> {
  const findings = await checkHost();
  console.log(args.json ? JSON.stringify(findings, undefined, 2) : findings.map(formatFinding).join('\n'));
  if (findings.some(({ verdict }) => verdict === 'missing')) process.exitCode = UNHEALTHY_STATUS;
}

export const doctorCommand: CommandModule<object, Arguments> = {
  command: 'doctor',
  describe: 'Say what this host lacks, and the command that mends it',
  builder: options as never,
  handler,
};
