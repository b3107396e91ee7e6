#!/bin/bash
# Scores a VCF on the nodes of a Slurm allocation; they form a Ray cluster for the run.
#
#   sbatch jobs/clusters/slurm.sh variants.vcf.gz --model deepsea --fasta hg38.fa --out scores \
#     --device cuda --workers 8
#
# The arguments go to `raygenome score`; all paths must be on a file system that every node sees.
# Submit it where raygenome is on the PATH. A job that is killed, preempted or out of time is queued
# again and continues with --resume.
#SBATCH --job-name=raygenome
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --mem=128G
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@300
set -euo pipefail
umask 077

: "${SLURM_JOB_ID:?start this with sbatch}"
nodes_wanted=$SLURM_JOB_NUM_NODES
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")

# A token for this job only. The nodes get it in the environment, never on a command line, where
# other users could read it. Nobody can connect without it.
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN
unset RAY_AUTH_TOKEN_PATH RAY_ADDRESS

# The ports depend on the job id, so that jobs on the same node do not use the same ones; they are
# below 32768, where the system's own choices start.
port=$((10000 + SLURM_JOB_ID % 2200 * 10))
read -r head_ip _ < <(srun --overlap --nodes=1 --ntasks=1 --nodelist="${nodes[0]}" hostname -I)
address=$head_ip:$port

# srun does not inherit this from sbatch.
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}
# The system chooses the ports of workers (0). /tmp/ray would be shared with other users' clusters,
# and the names of sockets must be short.
node_options=(--block --disable-usage-stats --num-cpus="$SRUN_CPUS_PER_TASK"
  --num-gpus="${SLURM_GPUS_ON_NODE:-0}" --min-worker-port=0 --max-worker-port=0
  --dashboard-agent-listen-port=$((port + 2)))

steps=()
run=
cleaned_up() {
  trap - EXIT
  local pid
  for pid in $run "${steps[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
  for pid in $run "${steps[@]}"; do wait "$pid" || true; done
}
trap cleaned_up EXIT

# Out of time (USR1, five minutes before): stop and queue the job again. Preempted (TERM): stop; Slurm
# itself queues the job again, except after `scancel`.
requeue=
stop() {
  stopped=1
  [[ -z $run ]] || kill -TERM "$run" 2>/dev/null || true
}
stopped=
trap 'requeue=1; stop' USR1
trap stop TERM INT

end_if_stopped() {
  [[ -n $stopped ]] || return 0
  cleaned_up
  [[ -z $requeue ]] || scontrol requeue "$SLURM_JOB_ID"
  exit 143
}

joined() {
  ray status --address "$address" 2>/dev/null |
    awk '/^Active:/ {on = 1; next} /^[A-Z]/ {on = 0} on && $2 ~ /^node_/ {n += $1} END {print n + 0}'
}
wait_for_nodes() {
  local waited found
  for ((waited = 0; ; waited += 2)); do
    end_if_stopped
    found=$(joined || true)
    ((${found:-0} < $1)) || return 0
    for pid in "${steps[@]}"; do
      kill -0 "$pid" 2>/dev/null || { echo "a node could not start Ray; see above" >&2; exit 74; }
    done
    ((waited < 300)) || { echo "only ${found:-0} of $nodes_wanted nodes joined" >&2; exit 74; }
    sleep 2
  done
}

srun --overlap --nodes=1 --ntasks=1 --nodelist="${nodes[0]}" \
  ray start --head --node-ip-address="$head_ip" --port="$port" --dashboard-host=127.0.0.1 \
  --dashboard-port=$((port + 1)) --ray-client-server-port=$((port + 3)) \
  --temp-dir="/tmp/ray-$SLURM_JOB_ID" "${node_options[@]}" &
steps+=($!)
wait_for_nodes 1
if ((nodes_wanted > 1)); then
  srun --overlap --nodes=$((nodes_wanted - 1)) --ntasks=$((nodes_wanted - 1)) \
    --exclude="${nodes[0]}" ray start --address="$address" "${node_options[@]}" &
  steps+=($!)
  wait_for_nodes "$nodes_wanted"
fi

raygenome score "$@" --address "$address" --resume &
run=$!
code=0
wait "$run" || code=$?
if [[ -n $stopped ]]; then
  wait "$run" || true  # the wait above was cut short by the signal
  run=
  end_if_stopped
fi
run=
exit "$code"
