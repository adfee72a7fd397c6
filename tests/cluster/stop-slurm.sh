#!/usr/bin/env bash
# Stop the bench started by start-slurm.sh: cancels its jobs, ends its own daemons by pid file. usage: stop-slurm.sh STATE_DIR [--wipe]
set -uo pipefail
S=$(cd "${1:?usage: stop-slurm.sh STATE_DIR [--wipe]}" && pwd -P)
export SLURM_CONF=$S/slurm.conf
timeout 10 scancel --signal=KILL --full -u "$(id -un)" 2>/dev/null; timeout 10 scancel -u "$(id -un)" 2>/dev/null
for _ in $(seq 25); do [ -z "$(timeout 5 squeue -h -t R,CG 2>/dev/null)" ] && break; sleep 0.2; done
for f in "$S"/run/slurmd-*.pid "$S/run/slurmctld.pid" "$S/run/munged.pid"; do
  [ -s "$f" ] || continue
  p=$(cat "$f"); kill "$p" 2>/dev/null
  for _ in $(seq 100); do kill -0 "$p" 2>/dev/null || break; sleep 0.1; done
  kill -0 "$p" 2>/dev/null && kill -9 "$p"
  rm -f "$f"
done
[ "${2:-}" = --wipe ] && rm -rf "$S"/{munge,log,run,save,spool,dev,bin,slurm.conf,gres.conf}
exit 0
