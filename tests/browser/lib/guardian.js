// Clears up after this process, however it ends: a shell at the other end of a pipe, which closes with
// us even when we are killed. It ends the servers that are still running and removes our folders.
import { spawn } from 'node:child_process';

const SCRIPT = `
trap '' INT TERM HUP
pids=
while read -r what value; do
  case $what in
    start) pids="$pids $value" ;;
    stop) left=; for pid in $pids; do [ "$pid" = "$value" ] || left="$left $pid"; done; pids=$left ;;
    folder) set -- "$@" "$value" ;;
  esac
done
for pid in $pids; do kill -KILL "$pid" 2>/dev/null; done
for attempt in 1 2 3 4 5; do rm -rf -- "$@" 2>/dev/null && break; sleep 1; done
`;

let shell = null;
/** Tells the guardian: `start` and `stop` with a process id, `folder` with a path to remove in the end. */
export const guardian = (what, value) => {
  if (!shell) {
    shell = spawn('/bin/sh', ['-c', SCRIPT, 'tilekeep-guardian'], { stdio: ['pipe', 'ignore', 'ignore'], detached: true });
    // It waits for us, not we for it.
    shell.unref();
    shell.stdin.unref?.();
  }
  shell.stdin.write(`${what} ${value}\n`);
};
