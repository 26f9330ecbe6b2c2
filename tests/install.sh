# Sourced by the setup.sh of a suite: installs its steps into the cache, outside the checkout; a step whose inputs are
# unchanged costs nothing. The script that sources it has `setup_STEP`, which installs a step, and `inputs STEP`, which
# prints what the step depends on. Debian packages are ./run's business (TEST_PACKAGES there).
# shellcheck shell=bash

# Makes a directory of the cache, keeps its path in `to`, and holds its lock until the script ends: two runs at once
# must not install into the same place.
cache_directory() { # NAME
  to=${PELTON_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pelton}/$1
  mkdir -p "$to"
  exec 9>"$to/setup.lock" && flock 9
}

copy_jars() { # POM DIRECTORY
  rm -rf "$2" && mvn -q -B -f "$1" dependency:copy-dependencies -DoutputDirectory="$2"
}

compile_java() { # DIRECTORY CLASSES JARS
  rm -rf "$2" && mkdir -p "$2" && javac -cp "$3/*" -d "$2" "$1"/*.java
}

# Installs one step after the other, up to one that fails.
install_steps() { # WHAT NETWORK STEP...
  local what=$1 network=$2 step now; shift 2
  for step in "$@"; do
    now=$(inputs "$step" | sha256sum)
    [ "$(cat "$to/$step.stamp" 2>/dev/null)" = "$now" ] && continue
    printf 'installing %s: %s\n' "$what" "$step" >&2
    rm -f "$to/$step.stamp"
    if ! ("setup_$step") >"$to/$step.log" 2>&1; then
      printf 'error: cannot install %s: %s\n  the whole output is in %s; the network must reach %s\n' \
        "$step" "$(tail -n 3 "$to/$step.log" | tr '\n' ' ')" "$to/$step.log" "$network" >&2
      return 1
    fi
    echo "$now" >"$to/$step.stamp"
  done
}
