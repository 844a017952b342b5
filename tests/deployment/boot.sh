#!/bin/bash
# boot.sh PACKAGE LOG <UNIT: installs the package into a temporary copy of this host, boots a systemd there that runs only
# the unit, purges the package, and writes the output of booted.sh to LOG. It runs in its own mount namespace, so that no
# mount stays.
set -euo pipefail
readonly PACKAGE=$1 LOG=$2 HERE=${BASH_SOURCE[0]%/*}

layers=$(mktemp -d)
trap 'umount --recursive "$layers" && rmdir "$layers"' EXIT
mount -t tmpfs none "$layers"
mkdir "$layers"/{upper,work,root}
mount -t overlay -o "lowerdir=/,upperdir=$layers/upper,workdir=$layers/work" overlay "$layers/root"
root=$layers/root

mkdir -p "$root/run" "$root/var/lib/dpkg/updates"
# systemd would enable every unit on the first boot.
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
  left=$(cd "$root" && find etc usr/bin usr/lib/systemd usr/share/doc var/lib/systemd -name '*closewatch*')
  if [[ $left ]]; then
    echo "left: $left"
    echo "FAIL leaves no file after a purge"
  else
    echo "ok leaves no file after a purge"
  fi
  echo "all checks ran"
} >>"$LOG" 2>&1
