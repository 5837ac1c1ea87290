#!/bin/bash
# build.sh DIR [PROGRAM…]: builds kube-apiserver, kube-controller-manager and kube-scheduler v1.20.2, or what is named (kubelet), from
# Debian's source package into DIR/bin (some 6 minutes on 2 cores, 3.5 GB). What is there stays.
# Debian has no newer one. Needs Debian 12 and root, for apt-get.
set -euo pipefail
W=$(mkdir -p "$1" && cd "$1" && pwd)
shift
[ $# != 0 ] || set -- kube-apiserver kube-controller-manager kube-scheduler
wanted=()
for program in "$@"; do
  [ -x "$W/bin/$program" ] || wanted+=("cmd/$program")
done
[ ${#wanted[@]} = 0 ] && exit 0
mkdir -p "$W"/{apt/lists/partial,apt/cache/archives/partial,bin,home}
cd "$W"
MIRROR=$(awk '/^URIs:/{print $2; exit}' /etc/apt/sources.list.d/debian.sources)
echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $MIRROR bookworm main" >apt/src.list
cat >apt/apt.conf <<END
Dir::Etc::SourceList "$W/apt/src.list"; Dir::Etc::SourceParts "/dev/null";
Dir::State::Lists "$W/apt/lists"; Dir::Cache "$W/apt/cache"; APT::Sandbox::User "root";
END
apt-get install -y -qq --no-install-recommends \
  golang-1.19-go golang-github-modern-go-reflect2-dev rsync make gcc dpkg-dev etcd-server >/dev/null
APT_CONFIG=$W/apt/apt.conf apt-get update -qq
[ -d "$W"/kubernetes-1.20* ] || APT_CONFIG=$W/apt/apt.conf apt-get source -qq kubernetes=1.20.5+really1.20.2-1.1+deb12u1
cd "$W"/kubernetes-1.20*/
# The vendored reflect2 predates the map iterators of Go 1.18: Debian's is newer.
rm -f vendor/github.com/modern-go/reflect2/*.{go,s}
cp /usr/share/gocode/src/github.com/modern-go/reflect2/*.{go,s} vendor/github.com/modern-go/reflect2/
printf 'KUBE_GIT_COMMIT=faecb196815e248d3ecfb03c680a4507229c2a56\nKUBE_GIT_TREE_STATE=archive\nKUBE_GIT_VERSION=v1.20.2\nKUBE_GIT_MAJOR=1\nKUBE_GIT_MINOR=20\n' >"$W/version.sh"
mkdir -p .go/src/k8s.io
ln -sfn ../../.. .go/src/k8s.io/kubernetes
export GOPATH=$PWD/.go HOME=$W/home CGO_ENABLED=0 GOPROXY=off GOFLAGS= PATH=/usr/lib/go-1.19/bin:$PATH KUBE_GIT_VERSION_FILE=$W/version.sh
nice -n 19 make WHAT="${wanted[*]}"
for program in "${wanted[@]##*/}"; do
  cp "_output/bin/$program" "$W/bin/"
done
