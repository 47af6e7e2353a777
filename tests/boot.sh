#!/bin/bash
# boot.sh ROOT INIT [SOURCE=TARGET...]: in namespaces of its own, make a root in the folder ROOT and
# become its process 1. SOURCE is seen at TARGET as well, and cannot be written. With BASE in the
# environment the root is what lies there, written to in memory alone; else /usr is this machine's,
# which cannot be written, and everything else is fresh.
set -euo pipefail
root=$1 init=$2
shift 2

this_machines_usr() {
  mount -t tmpfs -o mode=755,size=256m tmpfs "$root"
  cd "$root"
  mkdir -p etc/systemd/system etc/sysusers.d proc sys dev run tmp opt root home boot mnt usr \
    var/lib var/log var/tmp var/cache var/spool
  chmod 1777 tmp var/tmp
  mount --rbind /usr usr
  mount -o remount,bind,ro usr
  for folder in bin sbin lib lib32 lib64 libx32; do
    if [ -L "/$folder" ]; then
      cp -P "/$folder" .
    elif [ -d "/$folder" ]; then
      mkdir "$folder"
      mount --bind "/$folder" "$folder"
    fi
  done
  for name in ld.so.cache ld.so.conf ld.so.conf.d alternatives nsswitch.conf login.defs os-release localtime; do
    if [ -e "/etc/$name" ]; then cp -a "/etc/$name" etc/; fi
  done
  printf '%s\n' root:x:0:0:root:/root:/bin/bash nobody:x:65534:65534:nobody:/:/usr/sbin/nologin >etc/passwd
  printf '%s\n' root:x:0: video:x:44: render:x:105: nogroup:x:65534: >etc/group
  printf '%s\n' 'root:*:20000::::::' 'nobody:*:20000::::::' >etc/shadow
  printf '%s\n' 'root:*::' 'video:!::' 'render:!::' 'nogroup:!::' >etc/gshadow
}

what_lies_there() {
  mount -t tmpfs tmpfs /mnt
  mkdir /mnt/upper /mnt/work
  mount -t overlay -o "lowerdir=$BASE,upperdir=/mnt/upper,workdir=/mnt/work" overlay "$root"
  cd "$root"
}

mount --make-rprivate /
if [ -n "${BASE:-}" ]; then what_lies_there; else this_machines_usr; fi
echo 00000000000000000000000000000001 >etc/machine-id
# What a booting machine does for its hardware is not wanted here.
for unit in usr/lib/systemd/system/sysinit.target.wants/* lib/systemd/system/sysinit.target.wants/*; do
  case ${unit##*/} in
  systemd-journald.service | '*') ;;
  *) ln -sf /dev/null "etc/systemd/system/${unit##*/}" ;;
  esac
done
for unit in dbus.socket systemd-initctl.socket systemd-journald-audit.socket timers.target; do
  ln -sf /dev/null "etc/systemd/system/$unit"
done
mount -t proc proc proc
mount --bind /sys sys
mount -t tmpfs -o mode=755 tmpfs dev
for node in null zero full random urandom tty; do
  touch "dev/$node"
  mount --bind "/dev/$node" "dev/$node"
done
mkdir dev/shm dev/pts
ln -s /proc/self/fd dev/fd
for pair in "$@"; do
  target=${pair#*=}
  mkdir -p ".$target"
  mount --rbind "${pair%%=*}" ".$target"
  mount -o remount,bind,ro ".$target"
done
mkdir .before
pivot_root . .before
# shellcheck disable=SC2086  # a command and its arguments
exec chroot . /bin/bash -c 'umount -l /.before && rmdir /.before && mount --make-rshared / && exec "$@"' \
  boot env -i container=tests PATH=/usr/sbin:/usr/bin:/sbin:/bin $init
