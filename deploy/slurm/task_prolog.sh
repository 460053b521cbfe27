#!/bin/sh
# Gives a job its planned power level as environment variables. Set in slurm.conf on every node:
#   TaskProlog=/etc/slurm/task_prolog.sh
# The optimizer writes one small file per job (settings: slurm.level_dir) into a folder that the nodes can read; where a
# job has none, nothing is set. Lines printed as `export NAME=value` reach the job's environment.
folder=${POWERHALL_LEVEL_DIR:-/var/lib/powerhall/levels}
job=$SLURM_JOB_ID
if [ -n "$SLURM_ARRAY_JOB_ID" ]; then
  job="${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
fi
[ -r "$folder/$job" ] || exit 0
while IFS='=' read -r name value; do
  case $name in
    POWERHALL_MODE | POWERHALL_GPU_POWER_W) echo "export $name=$value" ;;
  esac
done <"$folder/$job"
exit 0
