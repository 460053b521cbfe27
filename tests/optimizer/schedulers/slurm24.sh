#!/bin/sh
# The Slurm tests on Slurm 24.11 of Debian trixie: slurm24.sh [TREE] [pytest options]; see slurm_tree.sh.
tree=${1:-out/trixie}
[ $# -eq 0 ] || shift
exec "$(dirname "$0")/slurm_tree.sh" trixie "$tree" "$@"
