#!/usr/bin/env bash
# The one door: ./build.sh [deps|build|env|test|train|lint|bench|ptx-check|gpu-check|help], build by default.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
root=$PWD

packages="clang-19 libclang-rt-19-dev libboost-context-dev ninja-build g++"
clang=${DDGPU_CLANG:-clang-19}

fail() { echo "build.sh: $*" >&2; exit 1; }

missing_packages() {
  command -v "$clang" >/dev/null || echo clang-19
  [ -e "$("$clang" -print-resource-dir 2>/dev/null)/lib/linux/libclang_rt.asan-$(uname -m).a" ] || echo libclang-rt-19-dev
  [ -e /usr/include/boost/context/detail/fcontext.hpp ] || echo libboost-context-dev
  command -v ninja >/dev/null || echo ninja-build
  command -v g++ >/dev/null || echo g++  # its libstdc++
}

deps() {
  command -v go >/dev/null || fail "go is missing: install Go $(sed -n "s,^go ,,p" go.mod) or newer from https://go.dev/dl"
  local missing
  missing=$(missing_packages | tr '\n' ' ')
  [ -z "$missing" ] && return
  local command="apt-get install -y --no-install-recommends $missing"
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing $missing" >&2
    { apt-get update -q && DEBIAN_FRONTEND=noninteractive $command; } >build-deps.log 2>&1 ||
      { cat build-deps.log >&2; rm -f build-deps.log; fail "'$command' failed"; }
    rm -f build-deps.log
  else
    fail "these packages are missing: $missing— install them with: sudo $command"
  fi
}

# Writes build/build.ninja; ninja then rebuilds what changed, the commands included.
write_ninja() {
  local cache="" arch variants out=build/build.ninja
  command -v ccache >/dev/null && cache="ccache "
  arch=$(uname -m)
  case $arch in
    x86_64) variants="f32_v3 f32_v4 f32_gpu f64_gpu" ;;
    aarch64) variants="f32_neon f32_gpu f64_gpu" ;;
    *) fail "no kernel variants for $arch" ;;
  esac
  local base=-march=x86-64-v3
  [ "$arch" = aarch64 ] && base=-march=armv8-a
  mkdir -p build kernels/ptx/sm_70
  {
    cat <<NINJA
ninja_required_version = 1.10
builddir = build
warn = -Wall -Wextra -Wno-unused-parameter -Wno-missing-field-initializers
rule cc
  command = $cache$clang -x c++ -std=c++20 -O2 -g \$warn -fPIC -pthread -ffunction-sections -Igpu/driver \$flags -MD -MF \$out.d -c \$in -o \$out
  depfile = \$out.d
  deps = gcc
  description = c++ \$out
rule kernel
  command = $cache$clang -x c++ -std=c++17 -O3 -g1 \$warn -Wno-unknown-attributes -fPIC -ffp-contract=off -fno-math-errno -fno-exceptions -fno-rtti -Igpu/driver/host -DSIMT_HOST -DSIMT_VARIANT=\$variant \$flags -MD -MF \$out.d -c \$in -o \$out
  depfile = \$out.d
  deps = gcc
  description = kernel \$variant \$in
rule ptx
  command = \$compile -MD -MF \$out.d -o \$out \$in
  depfile = \$out.d
  deps = gcc
  description = ptx \$in
rule copy
  command = cp \$in \$out
  description = copy \$out
rule archive
  command = gpu/driver/archive.sh $clang \$out \$in
  restat = 1
  description = archive \$out
rule link
  command = $clang++ -pthread \$flags -o \$out \$in -lboost_context -ldl \$libs
  description = link \$out
NINJA
    variant_flags() {
      case $1 in
        f32_v3) echo "-march=x86-64-v3" ;;
        f32_v4) echo "-march=x86-64-v4 -mprefer-vector-width=512" ;;
        f32_neon) echo "$base" ;;
        f32_gpu) echo "$base -DSIMT_TILES_GPU" ;;
        f64_gpu) echo "$base -DSIMT_TILES_GPU -DSIMT_REAL_F64" ;;
      esac
    }
    local ptx objects="" all="" source name variant
    if [ -n "${DDGPU_NVCC:-}" ]; then
      command -v "$DDGPU_NVCC" >/dev/null || fail "DDGPU_NVCC=$DDGPU_NVCC is not there"
      ptx="$DDGPU_NVCC -ptx -arch=compute_70 -std=c++17 -O3 -fmad=false"
    else
      ptx="$cache$clang -x cuda --cuda-device-only --cuda-gpu-arch=sm_70 -nocudainc -nocudalib --cuda-feature=+ptx63 -std=c++17 -O3 -ffp-contract=off -Wall -Wno-unused-function -S"
    fi
    for source in gpu/driver/dispatch/*.cc gpu/driver/host/*.cc; do
      name=build/host/$(basename "$(dirname "$source")")_$(basename "$source" .cc).o
      echo "build $name: cc $source"
      objects+=" $name"
    done
    for source in kernels/*.cu; do
      name=$(basename "$source" .cu)
      echo "build build/ptx/sm_70/$name.ptx: ptx $source"
      echo "  compile = $ptx"
      echo "build kernels/ptx/sm_70/$name.ptx: copy build/ptx/sm_70/$name.ptx"
      all+=" kernels/ptx/sm_70/$name.ptx"
      for variant in $variants; do
        echo "build build/host/$variant/$name.o: kernel $source"
        echo "  variant = $variant"
        echo "  flags = $(variant_flags "$variant")"
        objects+=" build/host/$variant/$name.o"
      done
    done
    echo "build build/host/current: archive$objects | gpu/driver/archive.sh"
    echo "build all: phony build/host/current$all"
    echo "default all"
  } >"$out.new"
  cmp -s "$out.new" "$out" && rm "$out.new" || mv "$out.new" "$out"
  for ptx in kernels/ptx/sm_70/*.ptx; do
    [ -e "kernels/$(basename "$ptx" .ptx).cu" ] || rm -f "$ptx"
  done
}

native() {
  deps
  write_ninja
  ninja -f build/build.ninja --quiet "$@" | sed "/no work to do/d"
}

# What a Go build needs: the driver library first on the search path, under a folder named by its content, because Go's cache
# does not look into archives.
environment() {
  [ -s build/host/current ] || fail "nothing built yet: run ./build.sh"
  echo "export CGO_ENABLED=1"
  echo "export CC=$clang"
  echo "export CGO_CFLAGS='-O2 -g -Wno-deprecated-declarations -I$root/gpu/driver'"
  echo "export CGO_LDFLAGS='-O2 -g -L$root/build/host/$(cat build/host/current) -static-libgcc'"
}

binary() {
  eval "$(environment)"
  if [ -d cli ]; then go build -o bin/ddgpu ./cli; fi
}

run_tests() {
  native
  binary
  go vet ./...
  go test ./...
}

case ${1:-build} in
  deps) deps ;;
  build) native && binary ;;
  env) environment ;;
  test) run_tests ;;
  help | -h | --help) sed -n 2p "$0" | cut -c3- ;;
  *) fail "unknown word '$1': $(sed -n 2p "$0" | cut -c3-)" ;;
esac
