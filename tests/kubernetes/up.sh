#!/bin/bash
# A node of Kubernetes in a network namespace that is there and has no way out. Environment:
# KUBENODE  the program that is every part    W   folder for everything, short    NS      name of the namespace
# PROXY     iptables or nftables              IMAGES   archives to import
# Every process that it starts is in $W/pids, the one that keeps the mount namespace first.
set -eu
IP=10.77.0.1
mkdir -p "$W"/{etc,log,cni,ctd,kubelet}
: > "$W/pids"
net="nsenter --net=/run/netns/$NS"
$net ip link add node0 type bridge
$net ip addr add $IP/24 dev node0
$net ip link set node0 up
# Routing comes before translation: pods that share the node's network reach Services only with a route to them.
$net ip route add 10.96.0.0/16 dev node0
$net sysctl -qw net.ipv4.ip_forward=1
# CNI's and runc's folders are their own; the settings that a kubelet makes for the whole machine go into plain files.
$net unshare -m --propagation private bash -c '
  mount --make-rshared /
  mkdir -p /run/containerd
  for d in netns containerd; do mount -t tmpfs none /run/$d; done
  for kv in vm/overcommit_memory=1 kernel/panic=10 kernel/panic_on_oops=1; do
    f=$0/etc/$(basename ${kv%=*}); echo ${kv#*=} > $f; mount --bind $f /proc/sys/${kv%=*}
  done
  touch $0/ready; exec sleep infinity' "$W" > /dev/null 2>&1 < /dev/null &
holder=$!
echo $holder >> "$W/pids"
until [ -f "$W/ready" ]; do kill -0 $holder; sleep 0.02; done
in="nsenter -t $holder -m -n"
start() { local name=$1; shift; $in "$@" > "$W/log/$name" 2>&1 < /dev/null & echo $! >> "$W/pids"; }
openssl genrsa -out "$W/etc/sa.key" 2048 2> /dev/null
echo > "$W/etc/resolv.conf"
token() { head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n'; }
: > "$W/etc/tokens.csv"
account() { # file, user, groups
  local token; token=$(token)
  echo "$token,$2,$1,\"$3\"" >> "$W/etc/tokens.csv"
  cat > "$W/etc/$1.conf" <<C
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://$IP:443", certificate-authority: $W/etc/cert/apiserver.crt}}]
users: [{name: u, user: {token: $token}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
C
}
account admin admin system:masters
account kcm system:kube-controller-manager ""
account sched system:kube-scheduler ""
account proxy system:kube-proxy ""
account kubelet system:node:node1 system:nodes
account weir system:serviceaccount:weir:weir ""
start etcd "$KUBENODE" etcd --data-dir "$W/etcd" --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
  --listen-peer-urls http://127.0.0.1:2380 --unsafe-no-fsync --log-level warn
start apiserver "$KUBENODE" kube-apiserver --etcd-servers http://127.0.0.1:2379 --cert-dir "$W/etc/cert" --bind-address 0.0.0.0 --secure-port 443 \
  --advertise-address $IP --service-cluster-ip-range 10.96.0.0/16 --service-account-issuer https://kubernetes.default.svc \
  --service-account-key-file "$W/etc/sa.key" --service-account-signing-key-file "$W/etc/sa.key" --token-auth-file "$W/etc/tokens.csv" \
  --authorization-mode Node,RBAC --allow-privileged --enable-priority-and-fairness=false --kubelet-preferred-address-types InternalIP
cat > "$W/etc/containerd.toml" <<C
version = 2
root = "$W/ctd/root"
state = "$W/ctd/state"
[grpc]
  address = "$W/ctd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "docker.io/local/pause:1"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$W/cni"
C
cat > "$W/cni/10-bridge.conflist" <<C
{"cniVersion":"0.4.0","name":"pods","plugins":[
 {"type":"bridge","bridge":"cni0","isGateway":true,"hairpinMode":true,
  "ipam":{"type":"host-local","dataDir":"$W/cni/ipam","ranges":[[{"subnet":"10.78.0.0/24"}]],"routes":[{"dst":"0.0.0.0/0"}]}},
 {"type":"portmap","capabilities":{"portMappings":true}}]}
C
start containerd containerd -c "$W/etc/containerd.toml"
cat > "$W/etc/kubelet.yaml" <<C
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix://$W/ctd.sock
cgroupDriver: cgroupfs
failSwapOn: false
failCgroupV1: false
enforceNodeAllocatable: []
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
evictionHard: {memory.available: "50Mi", nodefs.available: "0%", nodefs.inodesFree: "0%", imagefs.available: "0%"}
imageGCHighThresholdPercent: 100
localStorageCapacityIsolation: false
makeIPTablesUtilChains: false
oomScoreAdj: 0
resolvConf: $W/etc/resolv.conf
registerNode: true
syncFrequency: 5s
nodeStatusUpdateFrequency: 5s
C
within() { local n=$1; shift; for _ in $(seq "$n"); do "$@" > /dev/null 2>&1 && return; sleep 0.2; done; echo "not in time: $*" >&2; exit 1; }
within 150 $in ctr -a "$W/ctd.sock" version
for image in $IMAGES; do $in ctr -a "$W/ctd.sock" -n k8s.io images import "$image" > /dev/null; done
within 300 $in "$KUBENODE" kubectl --kubeconfig "$W/etc/admin.conf" get --raw /readyz
start kcm "$KUBENODE" kube-controller-manager --kubeconfig "$W/etc/kcm.conf" --service-account-private-key-file "$W/etc/sa.key" \
  --root-ca-file "$W/etc/cert/apiserver.crt" --use-service-account-credentials --leader-elect=false \
  --controllers='*,-nodeipam,-node-route-controller,-cloud-node-lifecycle-controller'
start scheduler "$KUBENODE" kube-scheduler --kubeconfig "$W/etc/sched.conf" --leader-elect=false
start proxy "$KUBENODE" kube-proxy --kubeconfig "$W/etc/proxy.conf" --proxy-mode "$PROXY" --hostname-override node1 --cluster-cidr 10.78.0.0/24 \
  --conntrack-max-per-core 0 --conntrack-tcp-timeout-established 0s --conntrack-tcp-timeout-close-wait 0s
start kubelet "$KUBENODE" kubelet --kubeconfig "$W/etc/kubelet.conf" --config "$W/etc/kubelet.yaml" --root-dir "$W/kubelet" \
  --hostname-override node1 --node-ip $IP --cert-dir "$W/etc/kubelet-pki"
within 300 $in "$KUBENODE" kubectl --kubeconfig "$W/etc/admin.conf" wait --for=condition=Ready --timeout=1s node/node1
