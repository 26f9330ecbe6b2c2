#!/usr/bin/env bash
# Installs Kafka Streams with its test driver, and the program here that uses it, into the cache. Prints the class path.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/../install.sh"
cache_directory streams-oracle

setup_libs() { copy_jars "$here/pom.xml" "$to/libs"; }
setup_classes() { compile_java "$here/java" "$to/classes" "$to/libs"; }

inputs() {
  case $1 in
    libs) cat "$here/pom.xml" ;;
    classes) cat "$here/pom.xml" "$here"/java/*.java ;;
  esac
}

install_steps "Kafka Streams to compare with" "Maven Central" libs classes
echo "$to/classes:$to/libs/*"
