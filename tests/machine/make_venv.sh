#!/bin/sh
# make_venv.sh PYTHON FOLDER: a virtual environment with pip, also where Debian's ensurepip is in a package that is not installed.
# Nothing is installed and apt's own lists are not touched: pip's wheel is unpacked from its package, used once, and thrown away.
set -eu
python=$1 folder=$2
"$python" -m venv "$folder" >/dev/null 2>&1 && exit 0
rm -rf "$folder"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/state/lists/partial" "$work/cache/archives/partial"
apt="apt-get -qq -o Dir::State=$work/state -o Dir::State::status=/var/lib/dpkg/status -o Dir::Cache=$work/cache -o APT::Sandbox::User=root"
$apt update
(cd "$work" && $apt download python3-pip-whl && dpkg -x python3-pip-whl_*.deb .)
"$python" -m venv --without-pip "$folder"
pip=$(echo "$work"/usr/share/python-wheels/pip-*.whl)/pip
"$folder/bin/python" "$pip" install --quiet --no-index --find-links "$work/usr/share/python-wheels" pip
