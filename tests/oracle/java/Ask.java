import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.DataInputStream;
import java.io.EOFException;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.UncheckedIOException;
import java.lang.reflect.InvocationTargetException;
import java.net.Socket;
import java.net.SocketException;
import java.net.SocketTimeoutException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.Map;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.message.ApiMessageType;
import org.apache.kafka.common.message.RequestHeaderData;
import org.apache.kafka.common.message.ResponseHeaderData;
import org.apache.kafka.common.protocol.ApiKeys;
import org.apache.kafka.common.protocol.ApiMessage;
import org.apache.kafka.common.protocol.ByteBufferAccessor;
import org.apache.kafka.common.protocol.MessageUtil;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.record.internal.MemoryRecordsBuilder;
import org.apache.kafka.common.utils.internals.ByteBufferOutputStream;

/**
 * Sends single requests with the codec of Kafka's own client, one line of JSON in and one out:
 *
 * {"to": "host:port", "api": "Metadata", "version": 12, "body": {...}}: the answer is {"answer": {...}}, or {"closed": true}
 * if the broker hangs up, or {"silent": true} if nothing comes. Fields at the top of the body have their defaults.
 * {"to", "api", "version", "hex"}: these bytes follow the client id; the answer is {"hex": "..."}.
 * {"codec": "gzip", "values": [10, 20]}: a record batch whose values have so many bytes, all the same, as {"hex": "..."}.
 * {"codec": "gzip", "time": 5, "records": [["key", "value"], ["key", null]], "producer": [9, 0, 3]}: a batch of these records,
 * in a transaction of this producer (id, epoch, sequence) unless it is left out, as {"hex": "..."}.
 */
public final class Ask {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final int PATIENCE_MS = 10_000;
    private static final Map<String, Socket> SOCKETS = new HashMap<>();
    private static int correlationId = 0;

    public static void main(String[] args) throws Exception {
        var in = new BufferedReader(new InputStreamReader(System.in));
        for (String line; (line = in.readLine()) != null; ) {
            var asked = JSON.readTree(line);
            var answer = asked.has("to") ? ask(asked) : asked.has("records") ? keyed(asked) : batch(asked);
            System.out.println(JSON.writeValueAsString(answer));
            System.out.flush();
        }
    }

    private static ObjectNode ask(JsonNode asked) throws Exception {
        var key = key(asked.get("api"));
        short version = (short) asked.get("version").asInt();
        var to = asked.get("to").asText();
        correlationId++;
        try {
            var socket = SOCKETS.computeIfAbsent(to, Ask::open);
            if (asked.has("hex")) {
                var header = ByteBuffer.allocate(10).putShort(key.id).putShort(version).putInt(correlationId).putShort((short) -1);
                var answer = exchange(socket, header.array(), HexFormat.of().parseHex(asked.get("hex").asText()));
                return object().put("hex", HexFormat.of().formatHex(answer, 4, answer.length));
            }
            var header = new RequestHeaderData().setRequestApiKey(key.id).setRequestApiVersion(version)
                .setCorrelationId(correlationId).setClientId("ask");
            var body = bytes(request(key, version, asked.get("body")), version);
            var answer = exchange(socket, bytes(header, key.requestHeaderVersion(version)), body);
            var accessor = new ByteBufferAccessor(ByteBuffer.wrap(answer));
            new ResponseHeaderData(accessor, key.responseHeaderVersion(version));
            var response = ApiMessageType.fromApiKey(key.id).newResponse();
            response.read(accessor, version);
            var out = object();
            out.set("answer", json(response, version));
            return accessor.remaining() == 0 ? out : out.put("left", accessor.remaining());
        } catch (EOFException | SocketException closed) {
            SOCKETS.remove(to).close();
            return object().put("closed", true);
        } catch (SocketTimeoutException silent) {
            SOCKETS.remove(to).close();
            return object().put("silent", true);
        }
    }

    /** An API by its number or its name. */
    private static ApiKeys key(JsonNode api) {
        if (api.isNumber()) return ApiKeys.forId(api.asInt());
        return ApiKeys.valueOf(api.asText().replaceAll("(?<=[a-z])(?=[A-Z])", "_").toUpperCase());
    }

    private static byte[] exchange(Socket socket, byte[] header, byte[] body) throws IOException {
        var frame = ByteBuffer.allocate(4 + header.length + body.length);
        socket.getOutputStream().write(frame.putInt(header.length + body.length).put(header).put(body).array());
        var input = new DataInputStream(socket.getInputStream());
        var answer = new byte[input.readInt()];
        input.readFully(answer);
        return answer;
    }

    private static Socket open(String to) {
        int colon = to.lastIndexOf(':');
        try {
            var socket = new Socket(to.substring(0, colon), Integer.parseInt(to.substring(colon + 1)));
            socket.setSoTimeout(PATIENCE_MS);
            socket.setTcpNoDelay(true);
            return socket;
        } catch (IOException e) {
            throw new UncheckedIOException("cannot connect to " + to, e);
        }
    }

    private static ApiMessage request(ApiKeys key, short version, JsonNode body) throws Exception {
        var fresh = ApiMessageType.fromApiKey(key.id).newRequest();
        var whole = (ObjectNode) json(fresh, version);
        body.properties().forEach(field -> whole.set(field.getKey(), field.getValue()));
        try {
            return (ApiMessage) converter(fresh).getMethod("read", JsonNode.class, short.class).invoke(null, whole, version);
        } catch (InvocationTargetException e) {
            throw new IllegalArgumentException(e.getCause().getMessage() + " in " + key.name + " v" + version);
        }
    }

    private static JsonNode json(ApiMessage message, short version) throws Exception {
        return (JsonNode) converter(message).getMethod("write", message.getClass(), short.class).invoke(null, message, version);
    }

    private static Class<?> converter(ApiMessage message) throws ClassNotFoundException {
        return Class.forName(message.getClass().getName() + "JsonConverter");
    }

    private static byte[] bytes(ApiMessage message, short version) {
        var buffer = MessageUtil.toByteBufferAccessor(message, version).buffer();
        var bytes = new byte[buffer.remaining()];
        buffer.get(bytes);
        return bytes;
    }

    private static ObjectNode batch(JsonNode asked) {
        var compression = Compression.of(asked.get("codec").asText()).build();
        long now = System.currentTimeMillis();
        try (var builder = new MemoryRecordsBuilder(new ByteBufferOutputStream(1 << 16), (byte) 2, compression,
            TimestampType.CREATE_TIME, 0L, now, -1L, (short) -1, -1, false, false, -1, Integer.MAX_VALUE)) {
            for (var size : asked.get("values")) {
                var value = new byte[size.asInt()];
                Arrays.fill(value, (byte) 'v');
                builder.append(now, null, value);
            }
            var records = builder.build();
            var bytes = new byte[records.sizeInBytes()];
            records.buffer().get(bytes);
            return object().put("hex", HexFormat.of().formatHex(bytes));
        }
    }

    private static ObjectNode keyed(JsonNode asked) {
        var compression = Compression.of(asked.get("codec").asText()).build();
        long time = asked.get("time").asLong();
        var producer = asked.get("producer");
        boolean transactional = producer != null;
        long id = transactional ? producer.get(0).asLong() : -1L;
        short epoch = transactional ? (short) producer.get(1).asInt() : (short) -1;
        int sequence = transactional ? producer.get(2).asInt() : -1;
        try (var builder = new MemoryRecordsBuilder(new ByteBufferOutputStream(1 << 16), (byte) 2, compression,
            TimestampType.CREATE_TIME, 0L, time, id, epoch, sequence, transactional, false, -1, Integer.MAX_VALUE)) {
            for (var record : asked.get("records")) {
                var value = record.get(1).isNull() ? null : record.get(1).asText().getBytes(StandardCharsets.UTF_8);
                builder.append(time++, record.get(0).asText().getBytes(StandardCharsets.UTF_8), value);
            }
            var records = builder.build();
            var bytes = new byte[records.sizeInBytes()];
            records.buffer().get(bytes);
            return object().put("hex", HexFormat.of().formatHex(bytes));
        }
    }

    private static ObjectNode object() {
        return JsonNodeFactory.instance.objectNode();
    }
}
