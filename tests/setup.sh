#!/usr/bin/env bash
# Fetches what widens the tests into the cache: Apache Kafka's jars (Java 17+ and Maven) and a Python environment.
# A missing tool is installed when this is root on Debian; otherwise it is said and skipped. Under CI=true nothing may be skipped.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${HOKUSAI_CACHE:-$HOME/.cache/hokusai}
kafka=4.1.0
mkdir -p "$cache"

skip() { # what, reason
  echo "skipped: $1: $2"
  if [ "${CI:-}" = true ]; then
    echo "under CI=true nothing may be skipped" >&2
    exit 1
  fi
}

have() { command -v "$1" >/dev/null 2>&1; }

debian() { # command package…: installs the packages when the command is missing and we may
  local command=$1
  shift
  have "$command" && return 0
  [ "$(id -u)" = 0 ] && have apt-get || return 0
  echo "installing $* (Debian)"
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"; } >"$cache/apt.log" 2>&1 ||
    { tail -5 "$cache/apt.log"; return 0; }
}

java_major() { java -version 2>&1 | sed -n '1s/.*version "\([0-9]*\).*/\1/p'; }

debian java default-jdk-headless
debian mvn maven
debian kcat kcat
have kcat || skip "kcat's checks" "no kcat"
debian chromium-headless-shell chromium-headless-shell # 100 MB to fetch
have chromium-headless-shell || have chromium || have google-chrome || skip "pages in a browser" "no Chromium"

jars=$cache/kafka/$kafka
if [ ! -e "$jars/.complete" ]; then
  if ! have java || [ "$(java_major)" -lt 17 ]; then
    skip "tests on Apache Kafka $kafka" "no Java 17 or newer"
  elif ! have mvn; then
    skip "tests on Apache Kafka $kafka" "no Maven"
  elif mvn -q -B -f tests/kafka/pom.xml -Dkafka="$kafka" dependency:copy-dependencies -DoutputDirectory="$jars" </dev/null >"$cache/maven.log" 2>&1; then
    touch "$jars/.complete"
  else
    tail -5 "$cache/maven.log"
    skip "tests on Apache Kafka $kafka" "Maven could not fetch the jars"
  fi
fi

environment() { # name, requirements, what needs it
  local venv=$cache/$1 stamp
  stamp=$(cksum <"$2" | tr ' ' -)
  [ ! -e "$venv/.complete-$stamp" ] || return 0
  debian python3 python3 python3-venv
  if ! have python3; then
    skip "$3" "no Python 3"
  elif { rm -rf "$venv" && python3 -m venv "$venv" && "$venv/bin/pip" install -q --disable-pip-version-check -r "$2"; } </dev/null >"$cache/pip.log" 2>&1; then
    touch "$venv/.complete-$stamp"
  else
    tail -5 "$cache/pip.log"
    skip "$3" "pip could not install $2"
  fi
}

environment python tests/python/requirements.txt "Python checks"
environment python-trainer examples/external/requirements.txt "the external trainer in Python"
