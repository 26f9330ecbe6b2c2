import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import java.io.BufferedReader;
import java.io.ByteArrayOutputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.nio.charset.StandardCharsets;
import org.apache.kafka.common.utils.internals.Exit;

/**
 * Runs Kafka's command line tools, many in one process: a line {"class": "org.apache.kafka.tools.AclCommand", "args": [...]} in,
 * a line {"status": 0, "out": "..."} out, with what the tool printed on both streams.
 */
public final class Tools {
    private static final ObjectMapper JSON = new ObjectMapper();

    /** What a tool's exit becomes: nothing of it may go on. */
    private static final class Ended extends Error {
        final int status;

        Ended(int status) {
            super("exit " + status, null, false, false);
            this.status = status;
        }
    }

    public static void main(String[] args) throws Exception {
        var answers = System.out;
        Exit.setExitProcedure((status, message) -> { throw new Ended(status); });
        Exit.setHaltProcedure((status, message) -> { throw new Ended(status); });
        var in = new BufferedReader(new InputStreamReader(System.in));
        for (String line; (line = in.readLine()) != null; ) {
            var asked = JSON.readTree(line);
            var words = JSON.convertValue(asked.get("args"), String[].class);
            var printed = new ByteArrayOutputStream();
            var stream = new PrintStream(printed, true, StandardCharsets.UTF_8);
            System.setOut(stream);
            System.setErr(stream);
            int status = run(asked.get("class").asText(), words, stream);
            var answer = JsonNodeFactory.instance.objectNode().put("status", status).put("out", printed.toString(StandardCharsets.UTF_8));
            answers.println(JSON.writeValueAsString(answer));
            answers.flush();
        }
    }

    private static int run(String tool, String[] args, PrintStream stream) throws Exception {
        try {
            Class.forName(tool).getMethod("main", String[].class).invoke(null, (Object) args);
            return 0;
        } catch (InvocationTargetException e) {
            if (e.getCause() instanceof Ended ended) return ended.status;
            e.getCause().printStackTrace(stream);
            return 1;
        }
    }
}
