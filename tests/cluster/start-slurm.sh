#!/usr/bin/env bash
# Start a private one-machine Slurm (munged + slurmctld + N slurmd) for tests, as root, without systemd.
#   usage: start-slurm.sh STATE_DIR     then:  source STATE_DIR/env.sh
# Idempotent: a second call on a running bench only re-checks it. stop-slurm.sh STATE_DIR ends it.
# Needs only Debian's slurm-wlm + munge packages. Touches nothing outside STATE_DIR (not /etc/slurm, not /etc/munge).
# Knobs (environment, read when STATE_DIR is new): NODES=1 CPUS=$(nproc) MEM=<MiB per machine> GPUS=2 GPU_TYPE=h100 PORT=16817
#   MINJOBAGE=3600 (squeue must remember finished jobs: the plugin wants >= 3 x its first status delay)
set -euo pipefail
S=$(mkdir -p "${1:?usage: start-slurm.sh STATE_DIR}" && cd "$1" && pwd -P)
NODES=${NODES:-1} CPUS=${CPUS:-$(nproc)} GPUS=${GPUS:-2} GPU_TYPE=${GPU_TYPE:-h100} PORT=${PORT:-16817}
MEM=${MEM:-$(( $(slurmd -C | sed -n 's/.*RealMemory=\([0-9]*\).*/\1/p') * 98 / 100 ))}
alive() { [ -s "$1" ] && kill -0 "$(cat "$1")" 2>/dev/null; }
mkdir -p "$S"/{munge,log,run,save,spool,dev,bin}; chmod 700 "$S/munge"

if [ ! -s "$S/slurm.conf" ]; then                       # ---- configuration, written once per state directory
  # Fake GPUs: slurmd wants character devices, so clones of /dev/null (with them CUDA_VISIBLE_DEVICES is set in jobs);
  # where mknod is forbidden, a bare count (GPU jobs are still scheduled, but no CUDA_VISIBLE_DEVICES).
  gpu="Name=gpu Type=$GPU_TYPE Count=$GPUS"
  for ((i = 0; i < GPUS; i++)); do mknod "$S/dev/nvidia$i" c 1 3 2>/dev/null && gpu="Name=gpu Type=$GPU_TYPE File=$S/dev/nvidia[0-$i]"; done
  echo "$gpu" > "$S/gres.conf"
  cat > "$S/slurm.conf" <<CONF
ClusterName=bench
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=$PORT
SlurmUser=root
SlurmdUser=root
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
AuthInfo=socket=$S/munge/socket,cred_expire=${CREDEXPIRE:-120}
StateSaveLocation=$S/save
SlurmdSpoolDir=$S/spool/%n
SlurmctldPidFile=$S/run/slurmctld.pid
SlurmdPidFile=$S/run/slurmd-%n.pid
SlurmctldLogFile=$S/log/slurmctld.log
SlurmdLogFile=$S/log/slurmd-%n.log
# No cgroups: works in containers and VMs alike (so nothing confines a job to its CPUs/memory/GPUs). pgid, not linuxproc:
# linuxproc loses children whose parent died (they become init's), so they outlive their job and keep the node COMPLETING.
ProctrackType=proctrack/${PROCTRACK:-pgid}
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=5
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
# the advertised CPUs may exceed the machine's
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
MinJobAge=${MINJOBAGE:-3600}
KillWait=${KILLWAIT:-30}
JobRequeue=1
ReturnToService=2
SlurmdTimeout=${SLURMDTIMEOUT:-60}
SlurmctldTimeout=30
$(for ((i = 1; i <= NODES; i++)); do echo "NodeName=node$i NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=$((PORT + i)) CPUs=$CPUS RealMemory=$((MEM / NODES)) Gres=gpu:$GPU_TYPE:$GPUS Feature=bench State=UNKNOWN"; done)
PartitionName=cpu Nodes=ALL Default=YES MaxTime=1-00:00:00 DefMemPerCPU=1000 State=UP
PartitionName=gpu Nodes=ALL MaxTime=1-00:00:00 DefMemPerCPU=1000 State=UP
CONF
  # The Snakemake jobstep plugin drops every SLURM_* variable (SLURM_CONF too) before calling srun, so srun would look
  # for /etc/slurm/slurm.conf. This wrapper, found through PATH (sbatch exports it), puts SLURM_CONF back.
  printf '#!/bin/sh\nSLURM_CONF="%s"; export SLURM_CONF\nexec %s "$@"\n' "$S/slurm.conf" "$(command -v srun)" > "$S/bin/srun"
  chmod +x "$S/bin/srun"
  printf 'export SLURM_CONF="%s/slurm.conf"\ncase ":$PATH:" in *":%s/bin:"*) ;; *) export PATH="%s/bin:$PATH";; esac\n' "$S" "$S" "$S" > "$S/env.sh"
fi
. "$S/env.sh"

if ! alive "$S/run/munged.pid"; then                    # ---- munged with its own key and socket
  [ -s "$S/munge/key" ] || { head -c 1024 /dev/urandom > "$S/munge/key"; chmod 600 "$S/munge/key"; }
  rm -f "$S/munge/socket"*; chmod 755 "$S" "$S/run" "$S/log"; chmod 711 "$S/munge"
  munged --force --num-threads=2 --key-file="$S/munge/key" --socket="$S/munge/socket" --pid-file="$S/run/munged.pid" \
         --log-file="$S/log/munged.log" --seed-file="$S/munge/seed"
fi
alive "$S/run/slurmctld.pid" || slurmctld -i            # ---- daemons fork themselves and write their pid files
for ((i = 1; i <= $(grep -c ^NodeName= "$S/slurm.conf"); i++)); do
  alive "$S/run/slurmd-node$i.pid" || slurmd -N "node$i"
done
deadline=$((SECONDS + 20))                              # ---- ready = every node idle/mixed/allocated
while ((SECONDS < deadline)) && sleep 0.1 && alive "$S/run/slurmctld.pid"; do
  out=$(timeout 3 sinfo -h -N -o %T 2>/dev/null) && [ -n "$out" ] || continue
  if ! grep -qvE '^(idle|mixed|allocated)$' <<< "$out"; then sinfo -N -o '%N %P %T cpus=%c mem=%m gres=%G'; exit 0; fi
  if grep -q down <<< "$out"; then scontrol update nodename=ALL state=resume 2>/dev/null || true; fi
done
echo "slurm did not become ready; see $S/log" >&2; grep -h fatal "$S"/log/*.log >&2 || true; exit 1
