#!/bin/sh
# The part of Kafka's script of this name that librdkafka's suite calls: a class of its own, on Kafka's Java client.
exec java -Xmx256m -XX:TieredStopAtLevel=1 -cp "$CLASSPATH:$KAFKA_JARS/*" "$@"
