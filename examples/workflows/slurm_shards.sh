#!/usr/bin/env bash
# Slides shared out to the jobs of an array, which need no scheduler but SLURM's:
#   job=$(sbatch --parsable slurm_shards.sh slides masks)
#   sbatch --dependency=afterany:$job --wrap 'gsd merge masks'
#SBATCH --job-name=gsd
#SBATCH --array=1-8
#SBATCH --cpus-per-task=8
#SBATCH --mem=8G
#SBATCH --time=08:00:00
#SBATCH --requeue
set -euo pipefail
slides=$1 masks=$2
export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK
exec gsd segment "$slides" -o "$masks/" --max-memory 6G \
    --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"
