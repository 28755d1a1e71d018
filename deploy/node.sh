#!/usr/bin/env bash
# Run one node of a Ray cluster until it is stopped, with the cores and GPUs of this job.
#
#   deploy/node.sh head                 # on one node; it listens at PORT (6379)
#   deploy/node.sh worker HEAD:6379     # on each of the others
#
# PYTHON names the Python that has ferhpo (python3). CPUS and GPUS replace what is found.
set -euo pipefail
role=${1:?head, or worker HEAD:PORT}
PYTHON=${PYTHON:-python3}
PORT=${PORT:-6379}
# The cores of the job by its affinity, its control group and SLURM_CPUS_PER_TASK: Ray itself would count the machine's.
CPUS=${CPUS:-$("$PYTHON" -c 'from ferhpo.config.settings import job_cpus; print(job_cpus())')}
GPUS=${GPUS:-${SLURM_GPUS_ON_NODE:-}}
options=(--num-cpus="$CPUS" --disable-usage-stats --block)
[ -z "$GPUS" ] || options+=(--num-gpus="$GPUS")
# Ray's command is the one beside this Python.
ray=$("$PYTHON" -c 'import sys, pathlib; print(pathlib.Path(sys.executable).parent / "ray")')
case $role in
    head) exec "$ray" start --head --port="$PORT" --include-dashboard=false "${options[@]}" ;;
    worker) exec "$ray" start --address="${2:?HEAD:PORT}" "${options[@]}" ;;
    *) echo "deploy/node.sh: $role is neither head nor worker" >&2; exit 2 ;;
esac
