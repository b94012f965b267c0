#!/bin/sh
# First process of the test VM. The marker tells the host that the kernel got here.
echo '##kfault-init'
export PATH=/bin HOME=/root USER=root LANG=C.UTF-8
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm /dev/net
mount -t devpts -o ptmxmode=0666 devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mkdir -p /run/netns /run/lock
# Hosts with a kernel of that age mostly have the hybrid layout: controllers of v1, as systemd
# mounts them, and v2 without any beside them. Newer ones have v2 alone.
case "$(uname -r)" in
5.10.*)
    mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
    for controllers in cpu,cpuacct memory pids blkio freezer; do
        mkdir "/sys/fs/cgroup/$controllers"
        mount -t cgroup -o "$controllers" cgroup "/sys/fs/cgroup/$controllers"
    done
    mkdir /sys/fs/cgroup/unified
    mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
    ;;
*) mount -t cgroup2 cgroup2 /sys/fs/cgroup ;;
esac
mount -t bpf bpf /sys/fs/bpf
mount -t debugfs debugfs /sys/kernel/debug
# debugfs mounts it below itself on first use; tools look for it here.
mount -t tracefs tracefs /sys/kernel/tracing
ln -sf /proc/self/fd /dev/fd
ln -sf /proc/self/mounts /etc/mtab
while read -r module; do insmod "/mods/$module.ko" || echo "insmod $module failed"; done </mods/order
[ -e /dev/net/tun ] || mknod /dev/net/tun c 10 200
ip link set lo up
hostname kfault-vm
cd /root
. /job/env
if [ -n "$KFAULT_SHELL" ]; then
    echo "kernel $(uname -r), module loading done at $(cut -d' ' -f1 /proc/uptime) s; 'exit' ends the machine"
    setsid cttyhack bash
    echo "##kfault-exit $?"
else
    echo "##kfault-ready $(cut -d' ' -f1 /proc/uptime)"
    sh /job/command </dev/null 2>&1
    echo "##kfault-exit $?"
fi
# The host ends the machine at the marker; this is for a host that is gone.
sleep 1
poweroff -f
