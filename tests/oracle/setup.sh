#!/usr/bin/env bash
# Installs Apache Kafka's server and tools, and the programs here that use its classes, into the cache.
# Usage: setup.sh [jars|classes|mirror]...
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/../install.sh"
cache_directory oracle

setup_jars() { copy_jars "$here/pom.xml" "$to/libs"; }
setup_classes() { compile_java "$here/java" "$to/classes" "$to/libs"; }
setup_mirror() { copy_jars "$here/mirror/pom.xml" "$to/mirror"; }

inputs() {
  case $1 in
    jars) cat "$here/pom.xml" ;;
    classes) cat "$here/pom.xml" "$here"/java/*.java ;;
    mirror) cat "$here/mirror/pom.xml" ;;
  esac
}

[ $# -gt 0 ] || set -- jars classes
install_steps "Apache Kafka to compare with" "Maven Central" "$@"
