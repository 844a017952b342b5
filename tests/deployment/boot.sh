#!/bin/bash
# boot.sh PACKAGE LOG <UNIT: installs the package into a copy of this machine that lasts as long as this does, boots a
# systemd there with the unit as all it has to do, removes the package again, and leaves in LOG what booted.sh said.
# In a mount namespace of its own: nothing of it can stay behind.
set -euo pipefail
readonly PACKAGE=$1 LOG=$2 HERE=${BASH_SOURCE[0]%/*}

layers=$(mktemp -d)
trap 'umount --recursive "$layers" && rmdir "$layers"' EXIT
mount -t tmpfs none "$layers"
mkdir "$layers"/{upper,work,root}
mount -t overlay -o "lowerdir=/,upperdir=$layers/upper,workdir=$layers/work" overlay "$layers/root"
root=$layers/root

mkdir -p "$root/run" "$root/var/lib/dpkg/updates"
# A machine that has never been booted would enable every unit that there is.
systemd-id128 new >"$root/etc/machine-id"
cp "$PACKAGE" "$root/closewatch.deb"
cp "$HERE/booted.sh" "$root/booted.sh"
cat >"$root/etc/systemd/system/booted.service"
chroot "$root" dpkg --install /closewatch.deb

systemd-nspawn --quiet --directory="$root" --boot --register=no --keep-unit --link-journal=no --private-network \
  --machine="closewatch-$$" --console=pipe -- --unit=booted.service || true
cp "$root/booted.log" "$LOG"

{
  chroot "$root" dpkg --purge closewatch
  if left=$(find "$root/etc" "$root/usr" "$root/var/lib/systemd" -name '*closewatch*' -newer "$root/closewatch.deb" -print -quit) && [[ $left ]]; then
    echo "$left is left"
    echo "FAIL leaves nothing behind when it is purged"
  else
    echo "ok leaves nothing behind when it is purged"
  fi
  echo "that was all"
} >>"$LOG" 2>&1
