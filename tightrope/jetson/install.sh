#!/usr/bin/env bash
# Put Tightrope on a Jetson, bring it up to date, or take it away again; docs/operate.md.
#
#   sudo jetson/install.sh install [--bundle FOLDER]... [what `tightrope service install` takes]
#   sudo jetson/install.sh upgrade
#   sudo jetson/install.sh uninstall
#
# From a checkout. What is so already is left as it is; bundles and state are never touched.
#
#   /opt/tightrope/HASH               an environment, by what went into it
#   /opt/tightrope/current            the one in use
#   /usr/local/bin/tightrope          its command
set -euo pipefail

HERE=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
SOURCE=$(readlink -f "$HERE/../..")
PREFIX=/opt/tightrope
CURRENT=$PREFIX/current
COMMAND=/usr/local/bin/tightrope
# By the path that stays: whatever it writes down of itself outlives an upgrade.
COMMAND_TEXT="#!/bin/sh
# Written by install.sh of Tightrope.
exec $CURRENT/bin/python $CURRENT/bin/tightrope \"\$@\""
CUDA=/usr/local/cuda

fail() { # STATUS SENTENCE
  echo "error: $2" >&2
  exit "$1"
}

check_board() {
  [ "$(id -u)" = 0 ] || fail 2 "this changes the system; run it with sudo"
  [ -r /etc/nv_tegra_release ] || fail 2 "/etc/nv_tegra_release is missing: this is no Jetson; elsewhere: pip install '.[cpu,serve]'"
  local release
  release=$(sed -nE 's/^# R([0-9]+) \(release\), REVISION: ([0-9]+)\.([0-9]+).*/\1 \2 \3/p' /etc/nv_tegra_release)
  # shellcheck disable=SC2086  # three words
  set -- $release
  [ $# = 3 ] || fail 2 "/etc/nv_tegra_release names no release that this script can read"
  case $1 in
  36) [ "$2" -gt 4 ] || { [ "$2" = 4 ] && [ "$3" -ge 3 ]; } ||
    fail 2 "Jetson Linux $1.$2.$3 is older than JetPack 6.2 (36.4.3); upgrade JetPack first" ;;
  38 | 39) ;;
  *) fail 2 "Jetson Linux $1.$2.$3 is unknown here; known are 36.4.3 and later, 38 and 39 (JetPack 6.2, 7.x)" ;;
  esac
}

check_packages() {
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    fail 1 "python3 is older than 3.10; JetPack 6 and 7 bring 3.10 and 3.12"
  python3 -c 'import ensurepip, venv' 2>/dev/null || apt-get install -y --no-install-recommends python3-venv ||
    fail 1 "python3-venv cannot be installed; give the board a network, or install it by hand"
  python3 -c 'import tensorrt' 2>/dev/null ||
    fail 1 "Python's TensorRT is missing: apt-get install python3-libnvinfer"
  [ -e "$CUDA/include/cuda.h" ] ||
    fail 1 "$CUDA has no headers, with which pycuda is built: apt-get install nvidia-jetpack"
}

pins() { # what was resolved for this Python on a board, else what the tests run with
  local file
  file=$HERE/pins/python$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])').txt
  [ -e "$file" ] || file=$SOURCE/constraints.txt
  echo "$file"
}

fingerprint() {
  {
    python3 -VV
    python3 -c 'import tensorrt; print(tensorrt.__version__)'
    cd "$SOURCE"
    find tightrope pyproject.toml README.md "$(pins)" -type f -not -name '*.pyc' -print0 |
      LC_ALL=C sort -z | xargs -0 sha256sum
  } | sha256sum | cut -c1-16
}

make_environment() { # FOLDER
  local folder=$1 build
  rm -rf "$folder"
  mkdir -p "$PREFIX"
  python3 -m venv --system-site-packages "$folder"
  # Built from a copy: the checkout may belong to somebody else, or be read-only.
  build=$(mktemp -d)
  cp -r "$SOURCE/tightrope" "$SOURCE/pyproject.toml" "$SOURCE/README.md" "$SOURCE/LICENSE" "$build"
  PATH=$CUDA/bin:$PATH CUDA_ROOT=$CUDA "$folder/bin/pip" install --quiet --disable-pip-version-check \
    --constraint "$(pins)" "$build[cpu,serve,jetson]" ||
    { rm -rf "$folder" "$build"; fail 1 "the environment could not be made; nothing was changed"; }
  rm -rf "$build"
  touch "$folder/.complete"
}

put_in_place() {
  check_board
  check_packages
  local folder
  folder=$PREFIX/$(fingerprint)
  if [ -e "$folder/.complete" ] && [ "$(readlink -f "$CURRENT")" = "$folder" ]; then
    echo "$folder is in use already"
  else
    [ -e "$folder/.complete" ] || make_environment "$folder"
    ln -sfn "$folder" "$CURRENT.next"
    mv -T "$CURRENT.next" "$CURRENT"
    echo "$folder is in use now"
    restart
    find "$PREFIX" -mindepth 1 -maxdepth 1 -not -path "$folder" -not -path "$CURRENT" -exec rm -rf {} +
  fi
  if [ "$(cat "$COMMAND" 2>/dev/null)" != "$COMMAND_TEXT" ]; then
    [ ! -e "$COMMAND" ] || is_ours || fail 2 "$COMMAND is there and was not written by this script; move it away"
    printf '%s\n' "$COMMAND_TEXT" >"$COMMAND"
    chmod 755 "$COMMAND"
  fi
}

is_ours() { # the command
  grep -qs "^# Written by install.sh of Tightrope" "$COMMAND"
}

units() { # those that run from $CURRENT
  grep -ls "^ExecStart=$CURRENT/" /etc/systemd/system/*.service | sed "s#.*/##" || true
}

restart() {
  [ -d /run/systemd/system ] || return 0
  local unit
  for unit in $(units); do
    systemctl try-restart "$unit" || fail 1 "$unit did not start: journalctl -u $unit says why"
  done
}

case ${1:-} in
install)
  shift
  put_in_place
  if [ $# -gt 0 ]; then "$COMMAND" service install "$@"; fi
  ;;
upgrade)
  [ -e "$CURRENT" ] || fail 2 "nothing is installed; $0 install does it"
  put_in_place
  ;;
uninstall)
  [ "$(id -u)" = 0 ] || fail 2 "this changes the system; run it with sudo"
  for unit in $(units); do "$COMMAND" service uninstall --name "${unit%.service}"; done
  rm -rf "$PREFIX"
  if is_ours; then rm "$COMMAND"; fi
  echo "removed $PREFIX and $COMMAND"
  ;;
*)
  sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0" >&2
  exit 2
  ;;
esac
