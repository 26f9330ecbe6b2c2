#!/bin/sh
# The part of Kafka's script of this name that librdkafka's suite calls, on kafka-python.
cache=${PELTON_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pelton}
exec "$cache/clients/python/bin/python" "$(dirname "$0")/topics.py" "$@"
