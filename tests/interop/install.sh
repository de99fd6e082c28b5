#!/bin/sh
# The programs that `make proof-interop` proves exports with, each in an environment of its own:
#
#   tests/interop/install.sh FOLDER PYTHON CONSTRAINTS
#
# llama.cpp is built from the source package of llama-cpp-python, llama-completion with it; that
# takes some minutes, and is left out where there is no C++ compiler: then those tests are skipped.
# What is there already is kept. Versions are those with which the proofs were last run.

set -eu
TRANSFORMERS=4.57.1       # the last series before 5
TRANSFORMER_LENS=4.3.0
LLAMA_CPP_PYTHON=0.3.36

folder=$1
python=$2
constraints=$3
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
torch=$(grep '^torch==' "$constraints")

environment() {  # NAME PACKAGE...: a virtual environment with these packages, unless it is there
  name=$1
  shift
  wanted="$*"
  if [ "$(cat "$folder/$name/.installed" 2>/dev/null)" != "$wanted" ]; then
    echo "Installing $wanted"
    rm -rf "${folder:?}/$name"
    "$python" -m venv "$folder/$name"
    "$folder/$name/bin/python" -m pip --disable-pip-version-check install --quiet "$@"
    echo "$wanted" > "$folder/$name/.installed"
  fi
}

llama_cpp() {
  if [ "$(cat "$folder/llama/.built" 2>/dev/null)" = "$LLAMA_CPP_PYTHON" ]; then
    return
  fi
  echo "Building llama.cpp of llama-cpp-python $LLAMA_CPP_PYTHON; this takes some minutes"
  rm -rf "$folder/llama"
  "$python" -m venv "$folder/llama"
  pip="$folder/llama/bin/python -m pip --disable-pip-version-check"
  command -v cmake > /dev/null || $pip install --quiet cmake
  PATH=$PATH:$folder/llama/bin
  source=$folder/llama/source
  $pip download --quiet --no-deps --no-binary llama-cpp-python --dest "$source" \
    "llama-cpp-python==$LLAMA_CPP_PYTHON"
  tar -xzf "$source"/*.tar.gz -C "$source" --strip-components=1
  cmake -S "$source/vendor/llama.cpp" -B "$folder/llama/build" -DCMAKE_BUILD_TYPE=Release \
    -DBUILD_SHARED_LIBS=ON -DGGML_OPENMP=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=OFF \
    -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF > "$folder/llama/cmake.log" 2>&1
  nice -n 19 cmake --build "$folder/llama/build" --target llama llama-completion \
    >> "$folder/llama/cmake.log" 2>&1
  # The bindings, with the library that was just built: its tests set LLAMA_CPP_LIB_PATH
  CMAKE_ARGS="-DLLAMA_BUILD=OFF -DLLAVA_BUILD=OFF" $pip install --quiet "$source"/*.tar.gz
  rm -rf "$source"
  echo "$LLAMA_CPP_PYTHON" > "$folder/llama/.built"
}

environment transformers-4 "$torch" "transformers==$TRANSFORMERS"
environment transformer-lens "$torch" "transformer-lens==$TRANSFORMER_LENS"
if command -v c++ > /dev/null; then
  llama_cpp
else
  echo "No C++ compiler: llama.cpp is left out, and its tests are skipped"
fi
