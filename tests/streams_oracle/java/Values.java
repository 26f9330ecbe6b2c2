/**
 * What values become. runtime/streams/tests/kafka_streams/values.rs is the same.
 *
 * A value is {"f":foreign key or null,"g":0..2,"n":0..999}; f follows from the other two.
 */
final class Values {
    final int g, n;

    Values(int g, int n) {
        this.g = Math.floorMod(g, 3);
        this.n = Math.floorMod(n, 1000);
    }

    static Values of(String text) {
        int g = text.indexOf("\"g\":") + 4;
        return new Values(text.charAt(g) - '0', Integer.parseInt(text.substring(g + 6, text.length() - 1)));
    }

    String key() { return n % 10 == 0 ? null : "k" + g; }

    public String toString() {
        return "{\"f\":" + (key() == null ? "null" : "\"" + key() + "\"") + ",\"g\":" + g + ",\"n\":" + n + "}";
    }

    static boolean passes(String value) { return value == null || of(value).n % 3 != 0; }

    static boolean isEven(String value) { return value != null && of(value).n % 2 == 0; }

    static String mapped(String value) {
        if (value == null) return null;
        Values v = of(value);
        return new Values(v.g + 1, v.n * 2 + 1).toString();
    }

    static String key(String value) { return value == null ? null : of(value).key(); }

    /** Records folded in their order. */
    static String folded(String state, String value) {
        if (state == null) return value;
        Values s = of(state), v = of(value);
        return new Values(s.g + v.g, s.n * 3 + v.n).toString();
    }

    /** Two states that become one: of the earlier and of the later session. */
    static String merged(String a, String b) {
        if (a == null) return b;
        Values l = of(a), r = of(b);
        return new Values(l.g + r.g, l.n * 7 + r.n).toString();
    }

    /** A row comes into a group, or leaves it (sign -1): it is undone exactly, whatever the order. */
    static String summed(String state, String value, int sign) {
        Values s = state == null ? new Values(0, 0) : of(state), v = of(value);
        return new Values(s.g + sign * v.g, s.n + sign * v.n).toString();
    }

    static String joined(String left, String right) {
        Values l = left == null ? new Values(0, 500) : of(left);
        Values r = right == null ? new Values(0, 700) : of(right);
        return new Values(l.g + r.g, l.n * 2 + r.n + 1).toString();
    }

    static String number(long n) { return new Values((int) n, (int) n).toString(); }
}
