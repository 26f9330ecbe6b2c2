#!/usr/bin/env bash
# Installs Apache Kafka and Kafka Streams, and the program here that uses them, into the cache. Prints where they are.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/../../tests/install.sh"
cache_directory bench-kafka

setup_libs() { copy_jars "$here/pom.xml" "$to/libs"; }
setup_classes() { compile_java "$here" "$to/classes" "$to/libs"; }

inputs() {
  case $1 in
    libs) cat "$here/pom.xml" ;;
    classes) cat "$here/pom.xml" "$here"/*.java ;;
  esac
}

install_steps "Apache Kafka to measure beside" "Maven Central" libs classes
echo "$to"
