#!/usr/bin/env bash
# A real SLURM on this machine for tests: no systemd, no cgroups, no accounting, everything below one folder.
#
#   sandbox.sh install   Debian's packages (needs root)
#   sandbox.sh start     munged, slurmctld and one slurmd a node; prints the exports that a client needs
#   sandbox.sh stop      cancels all jobs and ends exactly the daemons that it started
#
# Environment: SANDBOX (folder), SANDBOX_NODES (2), SANDBOX_CPUS of a node (2), SANDBOX_PORT (17817, and those after it),
# SANDBOX_ARRAY (MaxArraySize, 1001). Partitions: low (default), and high, which evicts jobs of low.
set -euo pipefail

top=${SANDBOX:-${TMPDIR:-/tmp}/slurm-sandbox-tests}
nodes=${SANDBOX_NODES:-2} cpus=${SANDBOX_CPUS:-2} port=${SANDBOX_PORT:-17817}
host=$(hostname -s)
export SLURM_CONF=$top/etc/slurm.conf PATH=$PATH:/usr/sbin:/sbin

until_true() { # SECONDS WHAT COMMAND...
  local end=$((SECONDS + $1)) what=$2
  shift 2
  until timeout 5 "$@" >/dev/null 2>&1; do
    if [ "$SECONDS" -ge "$end" ]; then
      echo "sandbox: waited in vain for $what" >&2
      tail -n 20 "$top"/log/*.log >&2 || true
      exit 1
    fi
    sleep 0.1
  done
}
living() { # a daemon that ended and that nobody waits for is a zombie, and dead
  local pid
  pid=$(cat "$1" 2>/dev/null) && [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null && ! grep -q '^State:.Z' "/proc/$pid/status" 2>/dev/null
}
all_idle() { [ "$(sinfo -h -N -p low -t idle -o %N | wc -l)" -eq "$nodes" ]; }

configure() {
  mkdir -p "$top"/{etc,log,run,state,munge}
  chmod 0755 "$top" "$top"/{munge,run,log}
  [ -s "$top/etc/munge.key" ] || head -c 1024 /dev/urandom >"$top/etc/munge.key"
  chmod 0400 "$top/etc/munge.key"
  cat >"$SLURM_CONF" <<CONF
ClusterName=sandbox
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
MailProg=/bin/true
AuthType=auth/munge
# a requeued job may start again only after the lifetime of a credential, two minutes by default
AuthInfo=socket=$top/munge/munge.sock,cred_expire=6
SlurmctldParameters=preempt_send_user_signal
SlurmctldPort=$port
SlurmctldPidFile=$top/run/slurmctld.pid
SlurmctldLogFile=$top/log/slurmctld.log
StateSaveLocation=$top/state
SlurmdPidFile=$top/run/slurmd-%n.pid
SlurmdLogFile=$top/log/slurmd-%n.log
SlurmdSpoolDir=$top/spool-%n
# no cgroups; several slurmd on one host, which may claim more than it has
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SwitchType=switch/none
SlurmdParameters=config_overrides
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
# without a default a job takes all memory of its node, so that no second one fits
DefMemPerCPU=1000
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=100000
KillWait=5
MinJobAge=86400
SlurmctldTimeout=120
SlurmdTimeout=120
MaxArraySize=${SANDBOX_ARRAY:-1001}
# never a job id twice in one folder of submitit, which would hand back the old result
FirstJobId=$(($(date +%s) % 60000000 + 1))
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
AccountingStorageType=accounting_storage/none
CONF
  local index
  for index in $(seq 1 "$nodes"); do
    echo "NodeName=node$index NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 2 + index)) CPUs=$cpus RealMemory=$((cpus * 1000)) State=UNKNOWN"
  done >>"$SLURM_CONF"
  cat >>"$SLURM_CONF" <<CONF
PartitionName=low  Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=10
PartitionName=high Nodes=ALL Default=NO  MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
CONF
}

case ${1:-} in
  install)
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends slurm-wlm munge
    ;;
  start)
    command -v slurmctld >/dev/null || { echo "sandbox: no slurmctld here; run '$0 install'" >&2; exit 1; }
    if living "$top/run/slurmctld.pid"; then echo "sandbox: runs already in $top" >&2; exit 1; fi
    configure
    munged --force --key-file="$top/etc/munge.key" --socket="$top/munge/munge.sock" --pid-file="$top/munge/munged.pid" \
      --seed-file="$top/munge/munged.seed" --log-file="$top/log/munged.log" --num-threads=2
    until_true 30 munged test -S "$top/munge/munge.sock"
    slurmctld -c
    until_true 60 slurmctld scontrol ping
    for index in $(seq 1 "$nodes"); do
      mkdir -p "$top/spool-node$index"
      slurmd -N "node$index"
    done
    export nodes
    until_true 60 "$nodes idle nodes" "$0" all_idle
    echo "export SLURM_CONF=$SLURM_CONF PATH=$PATH"
    ;;
  stop)
    if living "$top/run/slurmctld.pid"; then
      scancel --full --user=root >/dev/null 2>&1 || true
      for _ in $(seq 1 150); do [ -n "$(timeout 5 squeue -h 2>/dev/null)" ] || break; sleep 0.1; done # steps outlive their slurmd
    fi
    for file in "$top"/run/slurmd-*.pid "$top/run/slurmctld.pid" "$top/munge/munged.pid"; do
      living "$file" || continue
      kill "$(cat "$file" 2>/dev/null)" 2>/dev/null || true
      for _ in $(seq 1 100); do living "$file" || break; sleep 0.1; done
      if living "$file"; then kill -9 "$(cat "$file" 2>/dev/null)" 2>/dev/null || true; fi
      rm -f "$file"
    done
    ;;
  all_idle) all_idle ;;
  *) sed -n '2,10p' "$0"; exit 2 ;;
esac
