import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.FileWriter;
import java.io.IOException;
import java.io.Writer;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.util.concurrent.Executors;

/** Asks the next service: a pool of threads, and the client's own. */
final class Payment {
    private static final String[] NEXT = System.getenv("SHOP_NEXT").split("=");
    private static final HttpClient CLIENT = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
    private static Writer log;

    public static void main(String[] arguments) throws IOException {
        log = new FileWriter(System.getenv("SHOP_LOG"), true);
        String[] end = System.getenv("SHOP_LISTEN").split(":");
        HttpServer server = HttpServer.create(new InetSocketAddress(end[0], Integer.parseInt(end[1])), 1024);
        server.setExecutor(Executors.newFixedThreadPool(8));
        server.createContext("/orders/", Payment::answer);
        server.start();
    }

    private static void answer(HttpExchange exchange) throws IOException {
        exchange.getRequestBody().readAllBytes();
        String path = exchange.getRequestURI().getPath();
        HttpRequest.Builder request = HttpRequest.newBuilder(URI.create("http://" + NEXT[1] + path));
        String trace = exchange.getRequestHeaders().getFirst("traceparent");
        if (trace != null) {
            request.header("traceparent", trace);
        }
        int status = 502;
        byte[] body = new byte[0];
        try {
            HttpResponse<byte[]> answer = CLIENT.send(request.build(), HttpResponse.BodyHandlers.ofByteArray());
            status = answer.statusCode();
            body = answer.body();
            synchronized (log) {
                log.write(path.substring("/orders/".length()) + " " + NEXT[0] + " " + status + "\n");
                log.flush();
            }
        } catch (InterruptedException | IOException failure) {
            failure.printStackTrace();
        }
        exchange.sendResponseHeaders(status, body.length == 0 ? -1 : body.length);
        exchange.getResponseBody().write(body);
        exchange.close();
    }
}
