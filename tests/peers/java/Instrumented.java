import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.concurrent.Executors;

/** {@code Instrumented PORT UPSTREAM}, to be run with OpenTelemetry's own agent: {@code /order} asks the upstream. */
final class Instrumented {
    private static final HttpClient CLIENT = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();

    public static void main(String[] arguments) throws Exception {
        URI up = URI.create(arguments[1] + "/s/200");
        int port = Integer.parseInt(arguments[0]);
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", port), 1024);
        server.setExecutor(Executors.newFixedThreadPool(4));
        server.createContext("/order", exchange -> order(exchange, up));
        server.start();
    }

    private static void order(HttpExchange exchange, URI up) throws IOException {
        try {
            byte[] body = CLIENT.send(HttpRequest.newBuilder(up).build(), BodyHandlers.ofByteArray()).body();
            exchange.sendResponseHeaders(200, body.length);
            exchange.getResponseBody().write(body);
        } catch (InterruptedException interrupted) {
            throw new IOException(interrupted);
        } finally {
            exchange.close();
        }
    }
}
