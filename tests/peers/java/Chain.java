import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.FileWriter;
import java.io.IOException;
import java.io.Writer;
import java.net.HttpURLConnection;
import java.net.InetSocketAddress;
import java.net.URI;
import java.util.List;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;

/** As chain.py: {@code Chain PORT LOG UP same|pool}; com.sun.net.httpserver and HttpURLConnection. */
final class Chain {
    private static final List<String> PASSED = List.of("traceparent", "tracestate", "b3", "X-B3-TraceId", "X-B3-SpanId",
            "X-B3-Sampled", "X-Amzn-Trace-Id", "X-Request-Id");
    private static final ExecutorService POOL = Executors.newFixedThreadPool(8);
    private static Writer log;
    private static String up;
    private static boolean pool;

    public static void main(String[] arguments) throws Exception {
        log = new FileWriter(arguments[1], true);
        up = arguments[2];
        pool = arguments[3].equals("pool");
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", Integer.parseInt(arguments[0])), 1024);
        server.setExecutor(Executors.newFixedThreadPool(8));
        server.createContext("/", Chain::answer);
        server.start();
        for (int i = 0;; i++) {
            Thread.sleep(5);
            ask("/bg/" + i, null);
            write("bg " + i);
        }
    }

    private static void answer(HttpExchange exchange) throws IOException {
        String[] words = exchange.getRequestURI().getPath().split("/");
        int count = Integer.parseInt(words[3]);
        for (int k = 0; k < count; k++) {
            String path = "/out/" + words[2] + "/" + k;
            if (pool) {
                Future<?> done = POOL.submit(() -> {
                    ask(path, exchange);
                    return null;
                });
                try {
                    done.get();
                } catch (Exception failed) {
                    throw new IOException(failed);
                }
            } else {
                ask(path, exchange);
            }
            write(words[2] + " " + k);
        }
        exchange.sendResponseHeaders(200, 2);
        exchange.getResponseBody().write("ok".getBytes());
        exchange.close();
    }

    private static void ask(String path, HttpExchange from) throws IOException {
        HttpURLConnection connection = (HttpURLConnection) URI.create(up + path).toURL().openConnection();
        for (String name : PASSED) {
            String value = from == null ? null : from.getRequestHeaders().getFirst(name);
            if (value != null) {
                connection.setRequestProperty(name, value);
            }
        }
        connection.getInputStream().readAllBytes();
    }

    private static void write(String line) throws IOException {
        synchronized (log) {
            log.write(line + "\n");
            log.flush();
        }
    }
}
