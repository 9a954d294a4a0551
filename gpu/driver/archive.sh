#!/bin/sh
# archive.sh CLANG OUT OBJECTS…: joins the objects into build/host/HASH/libcuda.a and writes HASH to OUT. One `ld -r` object,
# so that the linker cannot drop the kernel tables; a folder named by content, so that Go's cache sees a change.
set -e
clang=$1 out=$2
shift 2
folder=$(dirname "$out")
# Boost's context switch comes along, so that whoever links the archive needs no Boost.
"$clang" -r -nostdlib -o "$folder/libcuda.o" "$@" -Wl,-Bstatic -lboost_context -Wl,-Bdynamic
hash=$(sha256sum "$folder/libcuda.o" | cut -c1-16)
if [ ! -e "$folder/$hash/libcuda.a" ]; then
  for old in "$folder"/*/libcuda.a; do
    [ -e "$old" ] && rm -rf "$(dirname "$old")"
  done
  mkdir -p "$folder/$hash"
  ar rcsD "$folder/$hash/libcuda.a.new" "$folder/libcuda.o"
  mv "$folder/$hash/libcuda.a.new" "$folder/$hash/libcuda.a"
fi
rm "$folder/libcuda.o"
[ "$(cat "$out" 2>/dev/null)" = "$hash" ] || echo "$hash" >"$out"
