#!/usr/bin/env bash
# The one door to ddgpu: ./build.sh WORD, explained by usage() below. Settings: DDGPU_CLANG (clang-19), DDGPU_NVCC (none).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
root=$PWD

usage() {
  cat <<'USAGE'
usage: ./build.sh [WORD] [ARGUMENTS]
  deps       install what a build needs and is missing, with apt; not as root: print the command
  build      build the driver library, the kernels and bin/ddgpu (the default)
  train      build, then train the quickstart preset on the bundled images: bin/ddgpu train --preset quickstart ARGUMENTS
  test       build, then run every test, those of kernels also under sanitizers; needs no GPU. test sanitizers: only those;
             test nightly: with every shape where a test otherwise takes two for each kernel
  lint       golangci-lint, clang-format and shellcheck over the tree
  bench      build, then time every operation: bin/ddgpu bench ARGUMENTS
  ptx-check  build, then assemble the kernels for sm_70 ... sm_90: registers, shared memory, spills, blocks; needs no GPU
  sass-report
             build, then disassemble the kernels for sm_80 ... sm_90: what bounds them, and what a training step takes at best on three GPUs
             (--docs writes that into docs/predicted-performance.md)
  sass-check fail where a kernel spills or its main loop has fewer matrix instructions than kernels/sassreport/shares.txt says
             (--update writes that file)
  gpu-check  build where there is a compiler, then check and time everything on the GPUs, in a short form on the host device where there is
             none: bin/ddgpu check ARGUMENTS, which writes docs/results/DEVICE-DATE.md
  env        print what plain go build, go test and editors need: eval "$(./build.sh env)"
  help       this text
DDGPU_CLANG names another clang; DDGPU_NVCC names an nvcc that compiles the kernels to PTX in place of clang.
USAGE
}

clang=${DDGPU_CLANG:-clang-19}
golangci_lint_version=v2.12.2

fail() {
  echo "build.sh: $*" >&2
  exit 1
}

# --- what is installed

# Installs Debian packages as root, otherwise prints the command that does.
install_packages() {
  [ $# = 0 ] && return
  local command="apt-get install -y --no-install-recommends $*" log
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    fail "missing: $*; install with: sudo $command"
  fi
  echo "installing $*" >&2
  log=$(mktemp)
  # shellcheck disable=SC2086 # a list of words
  if ! { apt-get update -q && DEBIAN_FRONTEND=noninteractive $command; } >"$log" 2>&1; then
    cat "$log" >&2
    rm -f "$log"
    fail "'$command' failed"
  fi
  rm -f "$log"
}

# needs TOOL PACKAGE: prints PACKAGE where TOOL is missing.
needs() { command -v "$1" >/dev/null || echo "$2"; }

build_packages() {
  needs "$clang" clang-19
  [ -e "$("$clang" -print-resource-dir 2>/dev/null)/lib/linux/libclang_rt.asan-$(uname -m).a" ] || echo libclang-rt-19-dev
  [ -e /usr/include/boost/context/detail/fcontext.hpp ] || echo libboost-context-dev
  needs ninja ninja-build
  needs g++ g++ # its libstdc++
}

deps() {
  [ -z "${DDGPU_CLANG:-}" ] || command -v "$clang" >/dev/null || fail "DDGPU_CLANG=$clang is not there"
  command -v go >/dev/null || fail "missing: go; install Go $(sed -n "s,^go ,,p" go.mod) or newer from https://go.dev/dl"
  # shellcheck disable=SC2046 # a list of words
  install_packages $(build_packages)
}

# Prints the path of golangci-lint, installed under build/tools.
golangci_lint() {
  local folder=$root/build/tools/golangci-lint-$golangci_lint_version
  if [ ! -x "$folder/golangci-lint" ]; then
    echo "installing golangci-lint $golangci_lint_version" >&2
    CGO_ENABLED=0 GOBIN=$folder go install "github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$golangci_lint_version" >&2
  fi
  echo "$folder/golangci-lint"
}

# wheel_tool REQUIREMENTS PACKAGE PATH-IN-WHEEL: prints the path of a program from the PyPI wheel that a requirements file pins by
# version and hash, installed under build/tools.
wheel_tool() {
  local wheel=$1 package=$2 inside=$3 tool=${3##*/} folder
  folder=$root/build/tools/$tool-$(sed -n "s/^$package==\([0-9.]*\).*/\1/p" "$wheel")
  if [ ! -x "$folder/$tool" ]; then
    # shellcheck disable=SC2046
    install_packages $(needs pip3 python3-pip)
    echo "installing $tool ($wheel)" >&2
    rm -rf "$folder.new"
    pip3 --disable-pip-version-check download -q --no-deps --require-hashes -d "$folder.new" -r "$wheel" >&2 ||
      fail "downloading $tool failed; DDGPU_${tool^^} can name one of CUDA 12 or newer"
    python3 -m zipfile -e "$folder.new"/*.whl "$folder.new"
    mkdir -p "$folder"
    install -m 755 "$folder.new/$inside" "$folder/$tool"
    rm -rf "$folder.new"
  fi
  echo "$folder/$tool"
}

# Prints the path of ptxas: DDGPU_PTXAS, or one on PATH that still knows sm_70, or that of the wheel in kernels/ptxas.
ptxas_path() {
  if [ -n "${DDGPU_PTXAS:-}" ]; then
    command -v "$DDGPU_PTXAS" || fail "DDGPU_PTXAS=$DDGPU_PTXAS is not there"
  elif command -v ptxas >/dev/null && ptxas --help | grep -q sm_70; then
    command -v ptxas
  else
    wheel_tool kernels/ptxas/requirements.txt nvidia-cuda-nvcc-cu12 nvidia/cuda_nvcc/bin/ptxas
  fi
}

# Prints the path of nvdisasm: DDGPU_NVDISASM, or that of the wheel in kernels/sassreport.
nvdisasm_path() {
  if [ -n "${DDGPU_NVDISASM:-}" ]; then
    command -v "$DDGPU_NVDISASM" || fail "DDGPU_NVDISASM=$DDGPU_NVDISASM is not there"
  else
    wheel_tool kernels/sassreport/requirements.txt nvidia-cuda-nvdisasm nvidia/cu13/bin/nvdisasm
  fi
}

# --- the build

ninja_rules() {
  local cache="" ptx
  command -v ccache >/dev/null && cache="ccache "
  if [ -n "${DDGPU_NVCC:-}" ]; then
    command -v "$DDGPU_NVCC" >/dev/null || fail "DDGPU_NVCC=$DDGPU_NVCC is not there"
    # -rdc: otherwise nvcc hides the GEOMETRY tables. 128: "loop is not reachable" in template instances.
    ptx="$DDGPU_NVCC -ptx -rdc=true -arch=compute_\$chip -std=c++17 -O3 -fmad=false --expt-relaxed-constexpr -diag-suppress 128"
  else
    # -disable-vector-combine: that pass takes 128-bit loads apart where it finds each value used once.
    # Then lines for profilers (.loc, .file), of paths that are the same on every machine, and no comments, which would make up a third.
    ptx="$cache$clang -x cuda --cuda-device-only --cuda-gpu-arch=sm_\$chip -nocudainc -nocudalib --cuda-feature=+ptx\$version -std=c++17 -O3 -ffp-contract=off -mllvm -disable-vector-combine -Wall -Wno-unused-function -S"
    ptx+=" -gline-directives-only -fno-verbose-asm -fdebug-compilation-dir=. -ffile-prefix-map=$("$clang" -print-resource-dir)=clang"
  fi
  # hidden: go-nvml's link flags export what is visible, and NVIDIA's library would call our cuInit … instead of its own.
  cat <<NINJA
ninja_required_version = 1.10
builddir = build
warn = -Wall -Wextra -Wno-unused-parameter -Wno-missing-field-initializers
rule cc
  command = $cache$clang -x c++ -std=c++20 -O2 -g \$warn -fPIC -fvisibility=hidden -pthread -ffunction-sections -Igpu/driver \$flags -MD -MF \$out.d -c \$in -o \$out
  depfile = \$out.d
  deps = gcc
  description = c++ \$out
rule vector
  command = $cache$clang -x c++ -std=c++20 -O3 -g1 \$warn -fPIC -fvisibility=hidden -ffp-contract=off -fno-math-errno -ffunction-sections -Igpu/driver $(vector_flags) \$flags -MD -MF \$out.d -c \$in -o \$out
  depfile = \$out.d
  deps = gcc
  description = c++ \$out
rule kernel
  command = $cache$clang -x c++ -std=c++17 -O3 -g1 \$warn -Wno-unknown-attributes -fPIC -ffp-contract=off -fno-math-errno -fno-exceptions -fno-rtti -Igpu/driver/host -Ikernels -DSIMT_HOST -DSIMT_VARIANT=\$variant \$flags -MD -MF \$out.d -c \$in -o \$out
  depfile = \$out.d
  deps = gcc
  description = kernel \$variant \$in
rule ptx
  command = $ptx \$flags -MD -MF \$out.d -o \$out \$in
  depfile = \$out.d
  deps = gcc
  description = ptx \$in
rule embed
  # Without the labels of line information, to which nothing refers: ptxas orders instructions otherwise where it meets one.
  command = sed -E '/^[\$\$]L__(tmp|func_begin|func_end)[0-9]+:$\$|^\t\.section\t\.debug_loc/d' \$in >\$out
  description = embed \$out
rule archive
  command = gpu/driver/archive.sh $clang \$out "\$tests" \$in
  restat = 1
  description = archive \$out
NINJA
}

# What the host device asks of a processor.
vector_flags() {
  case $(uname -m) in
    x86_64) echo "-march=x86-64-v3" ;;
    *) echo "-march=armv8-a" ;;
  esac
}

# What a precision's kernels are compiled with, by the first part of the variant's name.
precision_flags() {
  case $1 in
    f64_*) echo "-DSIMT_REAL_F64" ;;
    tf32*) echo "-DSIMT_TF32" ;;
    bf16*) echo "-DSIMT_BF16" ;;
  esac
}

# kernel_sources VARIANT: the sources that a variant or a PTX build is made of. TF32 is fp32 but for the matrix products.
kernel_sources() {
  case $1 in
    tf32*) echo kernels/conv.cu kernels/attention.cu ;;
    *) echo kernels/*.cu ;;
  esac
}

# The kernels' variants on this machine, one a line: name and flags.
variants() {
  local base precision
  for precision in f32 tf32 bf16; do
    case $(uname -m) in
      x86_64)
        base=-march=x86-64-v3
        echo "${precision}_v3 $base"
        echo "${precision}_v4 -march=x86-64-v4 -mprefer-vector-width=512"
        ;;
      aarch64)
        base=-march=armv8-a
        echo "${precision}_neon $base"
        ;;
      *) fail "no kernel variants for $(uname -m)" ;;
    esac
    echo "${precision}_gpu $base -DSIMT_TILES_GPU"
  done
  echo "f64_gpu $base -DSIMT_TILES_GPU"
}

# driver_builds FOLDER FLAGS: the driver library under build/FOLDER, with its C++ and its kernels compiled with FLAGS, and beside
# it the kernels that tests link. Reads the kernels' variants.
driver_builds() {
  local folder=build/$1 flags=$2 source rule name object variant of objects="" tests=""
  for source in gpu/driver/dispatch/*.cc gpu/driver/host/*.cc gpu/driver/host/ptx/*.cc; do
    object=$folder/$(basename "$(dirname "$source")")_$(basename "$source" .cc).o
    # warp.h says which files of the PTX executor compute with vectors.
    case $source in
      */ptx/bits.cc | */ptx/float.cc | */ptx/integer.cc | */ptx/convert.cc | */ptx/collective.cc | */ptx/interpret.cc) rule=vector ;;
      */ptx/memory.cc | */ptx/async.cc | */ptx/tensor.cc) rule=vector ;;
      *) rule=cc ;;
    esac
    echo "build $object: $rule $source"
    case $flags:$source in
      *fsanitize=thread*:*/fiber.cc | *fsanitize=thread*:*/team.cc | *fsanitize=thread*:*/block.cc | *fsanitize=thread*:*/mma.cc)
        echo "  flags = -DDDGPU_TSAN_RUNTIME" # fiber.h says why they are not instrumented
        ;;
      *) echo "  flags = $flags" ;;
    esac
    objects+=" $object"
  done
  while read -r variant of; do
    for source in $(kernel_sources "$variant") gpu/driver/testkernels/*.cu; do
      name=$(basename "$source" .cu)
      case $variant:$source in
        f32_gpu:*/testkernels/*) tests+=" $folder/$variant/$name.o" ;;
        *:*/testkernels/*) continue ;;
        *) objects+=" $folder/$variant/$name.o" ;;
      esac
      echo "build $folder/$variant/$name.o: kernel $source"
      echo "  variant = $variant"
      echo "  flags = $of $(precision_flags "$variant") $flags"
    done
  done
  echo "build $folder/current: archive$objects |$tests gpu/driver/archive.sh"
  echo "  tests =$tests"
}

asan_flags="-fsanitize=address,undefined -fno-sanitize-recover=all -fsanitize-address-use-after-return=never -fno-omit-frame-pointer -O1"
tsan_flags="-fsanitize=thread -O1"

# What PTX the program carries: one folder for each chip and precision.
ptx_builds="sm_70 sm_80_tf32 sm_80_bf16"

ninja_builds() {
  local source name folder of all="" tests=""
  for folder in $ptx_builds; do
    case $folder in
      sm_70) of="chip = 70;version = 63" ;;
      sm_80_*) of="chip = 80;version = 74" ;;
    esac
    for source in $(kernel_sources "${folder#sm_??_}"); do
      name=$folder/$(basename "$source" .cu).ptx
      echo "build build/ptx/$name: ptx $source"
      echo "  ${of/;/$'\n'  }"
      echo "  flags = $(precision_flags "${folder#sm_??_}")"
      echo "build kernels/ptx/$name: embed build/ptx/$name"
      all+=" kernels/ptx/$name"
    done
  done
  # Test kernels for the PTX executor.
  for source in gpu/driver/testkernels/*.cu; do
    name=build/ptx/test/$(basename "$source" .cu).ptx
    echo "build $name: ptx $source"
    echo "  chip = 80"
    echo "  version = 74"
    echo "  flags = -Ikernels"
    all+=" $name"
    tests+=" $name"
  done
  driver_builds host "" < <(variants)
  driver_builds asan "$asan_flags" < <(variants | grep -v _v4)
  driver_builds tsan "$tsan_flags" < <(variants | grep -v _v4)
  echo "build all: phony build/host/current$all"
  echo "build asan: phony build/asan/current$tests"
  echo "build tsan: phony build/tsan/current$tests"
  echo "default all"
}

# Writes build/build.ninja; ninja then rebuilds what changed, the commands included. Drops the PTX of deleted kernels.
write_ninja() {
  local out=build/build.ninja folder ptx
  mkdir -p build
  {
    ninja_rules
    ninja_builds
  } >$out.new
  if cmp -s $out.new $out; then rm $out.new; else mv $out.new $out; fi
  for folder in $ptx_builds; do
    mkdir -p "kernels/ptx/$folder"
    for ptx in "kernels/ptx/$folder"/*.ptx; do
      [ -e "kernels/$(basename "$ptx" .ptx).cu" ] || rm -f "$ptx"
    done
  done
}

native() {
  deps
  write_ninja
  ninja -f build/build.ninja --quiet "$@" | sed "/no work to do/d"
}

# What a Go build needs: the driver library first on the search path. Go's cache does not look into archives, so a linker flag
# names the library's content: packages that use cgo are compiled once, programs are linked anew when the library changes.
# `asan` and `tsan` give the sanitizers' builds, which native asan tsan makes, with the symbols that their reports need.
environment() {
  local folder=build/${1:-host} compiling=-O2 linking=-O2 symbols="" goflags
  [ -s "$folder/current" ] || fail "$folder is not built yet: run ./build.sh"
  case ${1:-host} in
    asan) linking="-O2 -no-pie -fsanitize=address,undefined -fsanitize-link-c++-runtime" symbols="-s=false -w=false " ;;
    tsan)
      linking="-O2 -no-pie -fsanitize=thread" symbols="-s=false -w=false "
      compiling="-O2 -fsanitize=thread" # tells TSan that Go orders the calls into C
      ;;
  esac
  echo "export CGO_ENABLED=1"
  echo "export CC=$clang"
  echo "export CGO_CFLAGS='$compiling -g -Wno-deprecated-declarations -I$root/gpu/driver'"
  echo "export CGO_LDFLAGS='$linking -g -L$root/$folder/lib -static-libgcc'"
  goflags=" $(go env GOFLAGS)"
  echo "export GOFLAGS='${goflags%%[ \"]-ldflags=*} \"-ldflags=$symbols-extldflags=-L$root/$folder/$(cat "$folder/current")\"'"
}

build() {
  native
  eval "$(environment)"
  go build -o bin/ddgpu ./cli
}

# --- the other words

train() {
  build
  bin/ddgpu train --preset quickstart "$@"
}

bench() {
  build
  bin/ddgpu bench "$@"
}

test_limit=10m # of a package, as Go has it; every shape takes longer

run_tests() {
  if [ "${1:-}" = nightly ]; then
    export DDGPU_NIGHTLY=1
    test_limit=6h
  fi
  if [ "${1:-}" != sanitizers ]; then
    build
    go vet ./...
    go test -timeout $test_limit ./...
  fi
  sanitizer_tests
}

# The tests of what runs kernels, under AddressSanitizer with UndefinedBehaviorSanitizer, and under ThreadSanitizer, for which
# only barriers order the threads of a block. A race is no failure of go test unless it ends the process. Networks are for
# AddressSanitizer: with an allocation for each tensor it sees an access beside one; ThreadSanitizer has seen their kernels.
sanitizer_tests() {
  native asan tsan
  with_sanitizer asan ./gpu/... ./kernels/... ./layers/...
  with_sanitizer tsan ./gpu/... ./kernels/...
}

with_sanitizer() {
  local sanitizer=$1
  shift
  echo "with $sanitizer:"
  env ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 TSAN_OPTIONS=halt_on_error=1 \
    bash -c "$(environment "$sanitizer"); go test -short -timeout $test_limit $*"
}

lint() {
  # shellcheck disable=SC2046
  install_packages $(needs clang-format-19 clang-format-19) $(needs shellcheck shellcheck)
  build
  local golangci failed=0
  golangci=$(golangci_lint)
  git ls-files '*.cu' '*.cuh' '*.cc' '*.h' | xargs clang-format-19 --dry-run -Werror || failed=1
  shellcheck build.sh .ci/run gpu/driver/archive.sh || failed=1
  "$golangci" run || failed=1
  [ $failed = 0 ] || fail "lint: see above"
}

ptx_check() {
  build
  local ptxas table=""
  ptxas=$(ptxas_path)
  # The host device's table is the pinned ptxas's: others count differently.
  case $ptxas in "$root"/build/tools/*) table=gpu/driver/host/registers.inc ;; esac
  go run ./kernels/ptxcheck -ptxas "$ptxas" -registers "$table" kernels/ptx/*/*.ptx
}

# sass ARGUMENTS: the report over all builds, with the launches of a training step in each precision.
sass() {
  local ptxas nvdisasm precision steps=""
  ptxas=$(ptxas_path)
  nvdisasm=$(nvdisasm_path)
  for precision in bf16 tf32 fp32; do
    bin/ddgpu launches --preset cifar10-ddpm --precision $precision --json >build/step-$precision.json
    steps+=,build/step-$precision.json
  done
  go run ./kernels/sassreport -ptxas "$ptxas" -nvdisasm "$nvdisasm" -step "${steps#,}" "$@" kernels/ptx/*/*.ptx
}

# With --docs, what docs/predicted-performance.md holds of the report is written anew.
sass_report() {
  local page=docs/predicted-performance.md
  build
  if [ "${1:-}" != --docs ]; then
    sass
    return
  fi
  {
    sed '/^Written by/q' $page
    printf '\n```\n'
    sass -builds bf16 -kernels '^(conv|attention|groupnorm)' -archs sm_80,sm_89,sm_90
    echo '```'
  } >build/page.md
  mv build/page.md $page
}

# The chips that have bf16 and are the furthest apart.
sass_check() {
  local update=""
  [ "${1:-}" != --update ] || update=-update
  build
  # shellcheck disable=SC2086 # nothing, or one word
  sass -archs sm_80,sm_90 -check kernels/sassreport/shares.txt $update
}

# A machine with GPUs may have no compilers: there bin/ddgpu, carried to it with testdata/, is checked as it is.
gpu_check() {
  if [ ! -x bin/ddgpu ] || { command -v go && command -v "$clang" && command -v ninja; } >/dev/null; then build; fi
  bin/ddgpu check "$@"
}

word=${1:-build}
[ $# = 0 ] || shift
case $word in
  deps) deps ;;
  build) build ;;
  env) environment "$@" ;;
  train) train "$@" ;;
  test) run_tests "$@" ;;
  lint) lint ;;
  bench) bench "$@" ;;
  ptx-check) ptx_check ;;
  sass-report) sass_report "$@" ;;
  sass-check) sass_check "$@" ;;
  gpu-check) gpu_check "$@" ;;
  help | -h | --help) usage ;;
  *)
    usage >&2
    fail "unknown word '$word'"
    ;;
esac
