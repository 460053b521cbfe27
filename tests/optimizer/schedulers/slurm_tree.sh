#!/usr/bin/env bash
# Runs the Slurm tests against another Slurm: a Debian tree made by debootstrap, whose programs are called through chroot
# by small scripts on the PATH of the tests. Needs root, debootstrap and a Debian mirror. Called by slurm24.sh, slurm26.sh:
#
#   slurm_tree.sh SUITE TREE [pytest options]      TREE is kept and used again
set -euo pipefail
cd "$(dirname "$0")/../../.."
name=$(basename "$0")
suite=$1 tree=$(realpath -m "$2")
shift 2
[ "$(id -u)" = 0 ] || { echo "$name: must run as root (chroot and mounts)" >&2; exit 1; }
if [ ! -x "$tree/usr/sbin/slurmctld" ]; then
  command -v debootstrap >/dev/null || { echo "$name: debootstrap is not installed (apt install debootstrap)" >&2; exit 1; }
  # The first mirror that apt is set up with (one-line or deb822 form) and that is not the security archive.
  mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null |
    sed -n 's/^URIs: *\([^ ]*\).*/\1/p; s/^deb \(\[[^]]*\] \)\?\([^ ]*\) .*/\2/p' | grep -v security | head -n 1) || true
  [ -n "$mirror" ] || { echo "$name: apt is set up with no Debian mirror (/etc/apt/sources.list)" >&2; exit 1; }
  mkdir -p "$(dirname "$tree")"
  packages=slurmctld,slurmd,slurm-client,slurm-wlm-basic-plugins,slurm-wlm-plugins
  debootstrap --variant=minbase --include="$packages" "$suite" "$tree" "$mirror" >"$tree.log" 2>&1 ||
    { tail -n 20 "$tree.log" >&2; rm -rf "$tree"; exit 1; } # half a tree is no tree
fi
mounted=()
cleanup() { for at in "${mounted[@]}"; do umount -l "$at"; done; }
trap cleanup EXIT
mount -t proc proc "$tree/proc" && mounted+=("$tree/proc")
for at in /dev /sys /tmp; do mount --bind "$at" "$tree$at" && mounted+=("$tree$at"); done
cp /etc/hosts "$tree/etc/hosts" # without it slurmctld cannot resolve localhost
bin="$tree/powerhall-bin"
mkdir -p "$bin"
# Every cluster gets a /run of its own: Slurm's authentication has one socket there, and the tests run two clusters.
for program in slurmctld slurmd sinfo squeue scontrol sbatch scancel srun; do
  at=usr/bin/$program
  [ -x "$tree/$at" ] || at=usr/sbin/$program
  cat >"$bin/$program" <<EOF
#!/bin/sh
export run="\${SLURM_CONF%/*}/system"
[ -n "\$SLURM_CONF" ] && mkdir -p "\$run" || run=$tree/run
exec unshare -m sh -c 'mount --bind "\$run" $tree/run && exec chroot \${POWERHALL_AS_USER:+--userspec=\$POWERHALL_AS_USER} $tree /$at "\$@"' sh "\$@"
EOF
  chmod +x "$bin/$program"
done
export POWERHALL_SLURM_BIN="$bin"
.venv/bin/python -m pytest tests/optimizer/schedulers -k slurm "$@"
