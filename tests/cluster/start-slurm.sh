#!/usr/bin/env bash
# Start a private Slurm of one machine for tests, as root, without systemd: munged, slurmctld, and three slurmd of four CPUs each, two
# of them with four GPUs (partition gpu), one without (partition cpu).
#   usage: PORT=first of four free ports  start-slurm.sh STATE_DIR
# Called again, it starts the daemons that are not alive; stop-slurm.sh STATE_DIR ends them. Needs Debian's packages slurm-wlm and munge.
# Touches nothing outside of STATE_DIR (not /etc/slurm, not /etc/munge).
set -euo pipefail
S=$(mkdir -p "${1:?usage: start-slurm.sh STATE_DIR}" && cd "$1" && pwd -P)
alive() { [ -s "$1" ] && kill -0 "$(cat "$1")" 2>/dev/null; }
mkdir -p "$S"/{munge,log,run,save,spool,dev,bin}; chmod 700 "$S/munge"

if [ ! -s "$S/slurm.conf" ]; then                       # ---- configuration, written once per state directory
  # Fake GPUs: slurmd wants character devices, so clones of /dev/null (with them CUDA_VISIBLE_DEVICES is set in jobs);
  # where mknod is forbidden, a bare count (GPU jobs are still scheduled, but no CUDA_VISIBLE_DEVICES).
  gpu="Name=gpu Type=h100 Count=4"
  for i in 0 1 2 3; do mknod "$S/dev/nvidia$i" c 1 3 2>/dev/null && gpu="Name=gpu Type=h100 File=$S/dev/nvidia[0-$i]"; done
  echo "NodeName=node[1-2] $gpu" > "$S/gres.conf"
  cat > "$S/slurm.conf" <<CONF
ClusterName=bench
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=$PORT
SlurmUser=root
SlurmdUser=root
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
# a requeued job waits that long
AuthInfo=socket=$S/munge/socket,cred_expire=5
StateSaveLocation=$S/save
SlurmdSpoolDir=$S/spool/%n
SlurmctldPidFile=$S/run/slurmctld.pid
SlurmdPidFile=$S/run/slurmd-%n.pid
SlurmctldLogFile=$S/log/slurmctld.log
SlurmdLogFile=$S/log/slurmd-%n.log
# No cgroups: works in containers and VMs alike (so nothing confines a job to its CPUs/memory/GPUs). pgid, not linuxproc:
# linuxproc loses children whose parent died (they become init's), so they outlive their job and keep the node COMPLETING.
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=5
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
# the advertised CPUs and memory may exceed the machine's
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
# squeue must remember finished jobs: the plugin wants >= 3 x its first status delay
MinJobAge=3600
KillWait=20
JobRequeue=1
ReturnToService=2
# a busy machine's nodes do not count as lost
SlurmdTimeout=300
SlurmctldTimeout=30
$(for i in 1 2 3; do echo "NodeName=node$i NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=$((PORT + i)) CPUs=4 RealMemory=64000 $([ $i = 3 ] || echo Gres=gpu:h100:4) State=UNKNOWN"; done)
PartitionName=cpu Nodes=node3 Default=YES MaxTime=1-00:00:00 DefMemPerCPU=1000 State=UP
PartitionName=gpu Nodes=node[1-2] MaxTime=1-00:00:00 DefMemPerCPU=1000 State=UP
CONF
  # The Snakemake jobstep plugin drops SLURM_CONF before calling srun, so that what it starts would look for /etc/slurm/slurm.conf.
  # These wrappers, found through PATH (sbatch exports it), put SLURM_CONF back.
  for name in srun scontrol; do
    printf '#!/bin/sh\nSLURM_CONF="%s"; export SLURM_CONF\nexec %s "$@"\n' "$S/slurm.conf" "$(command -v $name)" > "$S/bin/$name"
    chmod +x "$S/bin/$name"
  done
fi
export SLURM_CONF="$S/slurm.conf" PATH="$S/bin:$PATH"

if ! alive "$S/run/munged.pid"; then                    # ---- munged with its own key and socket
  [ -s "$S/munge/key" ] || { head -c 1024 /dev/urandom > "$S/munge/key"; chmod 600 "$S/munge/key"; }
  rm -f "$S/munge/socket"*; chmod 755 "$S" "$S/run" "$S/log"; chmod 711 "$S/munge"
  munged --force --num-threads=2 --key-file="$S/munge/key" --socket="$S/munge/socket" --pid-file="$S/run/munged.pid" \
         --log-file="$S/log/munged.log" --seed-file="$S/munge/seed"
fi
alive "$S/run/slurmctld.pid" || slurmctld -i            # ---- daemons fork themselves and write their pid files
for node in node1 node2 node3; do alive "$S/run/slurmd-$node.pid" || slurmd -N "$node"; done
deadline=$((SECONDS + 20))                              # ---- ready = every node idle/mixed/allocated
while ((SECONDS < deadline)) && sleep 0.1 && alive "$S/run/slurmctld.pid"; do
  out=$(timeout 3 sinfo -h -N -o %T 2>/dev/null) && [ -n "$out" ] || continue
  if ! grep -qvE '^(idle|mixed|allocated)$' <<< "$out"; then exit 0; fi
  if grep -q down <<< "$out"; then scontrol update nodename=ALL state=resume 2>/dev/null || true; fi
done
echo "slurm did not become ready; see $S/log" >&2; grep -h fatal "$S"/log/*.log >&2 || true; exit 1
