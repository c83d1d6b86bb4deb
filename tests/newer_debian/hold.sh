# A mount namespace whose root is a newer Debian, with a layer of its own above it; held until the test ends.
# $1: the directory; $2: where to build; $3: mossnet. Everything else is inherited.
set -eu
umask 022
mkdir "$2/upper" "$2/work" "$2/root"
mount -t overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" overlay "$2/root"
cd "$2/root"
mount -t proc proc proc
mount -t sysfs sysfs sys
# Also where the machine still has the first version: podman 6 knows the second alone.
mount -t cgroup2 none sys/fs/cgroup
mount -t tmpfs -o mode=755 none dev
mkdir dev/net dev/pts dev/shm
for device in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0 net/tun:10:200; do
    numbers=${device#*:}
    mknod -m 666 "dev/${device%%:*}" c "${numbers%:*}" "${numbers#*:}"
done
mount -t devpts -o newinstance,ptmxmode=666,mode=620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs -o mode=1777 none dev/shm
# A file system that podman's storage can stack layers on; so the tests need not copy them.
mount -t tmpfs -o mode=755 none run
mount -t tmpfs -o mode=755 none home
mkdir -p var/lib/containers
mount -t tmpfs -o mode=755 none var/lib/containers
mkdir -p run/user/1000 home/user
chown 1000:1000 run/user/1000 home/user
chmod 700 run/user/1000
chmod 1777 tmp var/tmp
cp /etc/resolv.conf /etc/hosts etc
cp "$3" usr/local/bin/mossnet
mkdir old
pivot_root . old
busybox umount -l old
rmdir old
echo ready
exec sleep 100000
