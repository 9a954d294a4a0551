#!/bin/sh
# archive.sh CLANG OUT TESTS OBJECTS…: joins the objects into libcuda.a, and those listed in TESTS into libtestkernels.a, both in
# a folder HASH beside OUT, which `lib` beside it points to, and writes HASH to OUT. One `ld -r` object each, so that the
# linker cannot drop the kernel tables.
set -e
clang=$1 out=$2 tests=$3
shift 3
folder=$(dirname "$out")
# Boost's context switch comes along, so that whoever links the archive needs no Boost.
"$clang" -r -nostdlib -o "$folder/libcuda.o" "$@" -Wl,-Bstatic -lboost_context -Wl,-Bdynamic
# shellcheck disable=SC2086 # a list of words
"$clang" -r -nostdlib -o "$folder/libtestkernels.o" $tests
hash=$(cat "$folder/libcuda.o" "$folder/libtestkernels.o" | sha256sum | cut -c1-16)
if [ ! -e "$folder/$hash/libcuda.a" ]; then
  for old in "$folder"/*/libcuda.a; do
    [ -e "$old" ] && rm -rf "$(dirname "$old")"
  done
  rm -rf "$folder/$hash.new"
  mkdir -p "$folder/$hash.new"
  for name in libtestkernels libcuda; do
    ar rcsD "$folder/$hash.new/$name.a" "$folder/$name.o"
  done
  mv "$folder/$hash.new" "$folder/$hash"
fi
rm "$folder/libcuda.o" "$folder/libtestkernels.o"
ln -sfn "$hash" "$folder/lib"
[ "$(cat "$out" 2>/dev/null)" = "$hash" ] || echo "$hash" >"$out"
