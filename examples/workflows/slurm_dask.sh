#!/usr/bin/env bash
# Slides on the Dask workers of one job: sbatch slurm_dask.sh slides masks
#SBATCH --job-name=gsd
#SBATCH --ntasks=8
#SBATCH --cpus-per-task=8
#SBATCH --mem-per-cpu=1G
#SBATCH --time=08:00:00
#SBATCH --requeue
set -euo pipefail
slides=$1 masks=$2
mkdir -p "$masks"
port=$((20000 + SLURM_JOB_ID % 20000)) # of this job: others may share the machine
address=tcp://$(hostname):$port
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
dask scheduler --port "$port" --dashboard-address :0 &
srun --kill-on-bad-exit=0 dask worker "$address" --nthreads "$SLURM_CPUS_PER_TASK" \
    --memory-limit 0 --local-directory "${TMPDIR:-/tmp}" &
gsd segment "$slides" -o "$masks/" --max-memory 6G --dask "$address"
