#!/bin/sh
# The first process of a node: it starts in the node's namespaces, sets up the node's mounts, runs
# containerd, kubelet and kube-proxy, and waits. When it ends, the kernel ends all of the node.
#
#   node.sh STATE NAME ADDRESSES HYPERKUBE
#
# STATE/cgroups has the cgroup hierarchies (place, file system, options), STATE/places the folders
# that are the node's own, STATE/NAME the node's settings, images and data.
set -eu
state=$1 name=$2 addresses=$3 hyperkube=$4
own=$state/$name
PATH=$PATH:/usr/sbin:/sbin

echo "$name" >/proc/sys/kernel/hostname
# Pods that mount for the whole node (bpffs, volumes) need a root that shares its mounts.
mount --make-rshared /
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/netns /run/machine

# The kubelet sets these for the whole machine (a reboot after a kernel oops, among others). Here
# it writes to files that nobody else has.
for key in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops \
  kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
  if [ -e "/proc/sys/$key" ]; then
    copy=/run/machine/$(echo "$key" | tr / .)
    cat "/proc/sys/$key" >"$copy"
    mount --bind "$copy" "/proc/sys/$key"
  fi
done

# A new sysfs shows the node's network; a new mount of a cgroup hierarchy has the node's cgroup as
# its root.
mount -t sysfs sysfs /sys
if ! grep -q '^\. ' "$state/cgroups"; then
  mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
fi
while read -r place kind options; do
  mkdir -p "/sys/fs/cgroup/$place"
  mount -t "$kind" -o "$options" "$kind" "/sys/fs/cgroup/$place"
  case $place in *,*)
    # Controllers that share a hierarchy are looked for by their single names.
    for part in $(echo "$place" | tr , ' '); do ln -s "$place" "/sys/fs/cgroup/$part"; done ;;
  esac
done <"$state/cgroups"
if grep -q '^\. ' "$state/cgroups"; then
  # Pods get controllers only from a cgroup that has no process itself.
  mkdir /sys/fs/cgroup/init
  echo $$ >/sys/fs/cgroup/init/cgroup.procs
  for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
    echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control || true
  done
fi
mount -t bpf bpf /sys/fs/bpf
mount -t debugfs debugfs /sys/kernel/debug 2>/dev/null || true
mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null || true

while read -r folder; do
  mkdir -p "$own/data$folder"
  mount --bind "$own/data$folder" "$folder"
done <"$state/places"

containerd --config "$own/containerd.toml" >"$state/log/$name-containerd.log" 2>&1 &
tries=0
until ctr version >/dev/null 2>&1; do
  tries=$((tries + 1))
  if [ $tries -gt 300 ]; then
    echo "containerd does not answer"
    exit 1
  fi
  sleep 0.1
done
for image in "$own"/images/*.tar; do
  ctr --namespace k8s.io images import "$image"
done
until [ -e "$state/api-is-ready" ]; do sleep 0.05; done
"$hyperkube" kubelet --config="$own/kubelet.yaml" --kubeconfig="$state/$name.kubeconfig" \
  --hostname-override="$name" --node-ip="$addresses" >"$state/log/$name-kubelet.log" 2>&1 &
"$hyperkube" kube-proxy --config="$own/kube-proxy.yaml" >"$state/log/$name-kube-proxy.log" 2>&1 &
echo "started"
wait
