import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.FileWriter;
import java.io.IOException;
import java.io.Writer;
import java.net.InetSocketAddress;
import java.util.concurrent.Executors;

/** com.sun.net.httpserver: {@code Server PORT LOG}. */
final class Server {
    private static Writer log;

    public static void main(String[] arguments) throws IOException {
        log = new FileWriter(arguments[1], true);
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", Integer.parseInt(arguments[0])), 1024);
        server.setExecutor(Executors.newFixedThreadPool(4));
        server.createContext("/", Server::answer);
        server.start();
    }

    private static void answer(HttpExchange exchange) throws IOException {
        byte[] asked = exchange.getRequestBody().readAllBytes();
        String path = exchange.getRequestURI().getPath();
        String[] words = path.split("/");
        int number = words.length > 2 ? Integer.parseInt(words[2]) : 0;
        int status = words[1].equals("status") ? number : 200;
        byte[] body = switch (words[1]) {
            case "status" -> words[2].getBytes();
            case "echo" -> asked;
            default -> "x".repeat(number).getBytes();
        };
        boolean empty = status == 204 || status == 304;
        // A length of 0 means chunked here, -1 means none.
        long length = words[1].equals("chunked") ? 0 : empty || body.length == 0 ? -1 : body.length;
        exchange.sendResponseHeaders(status, length);
        if (length >= 0) {
            exchange.getResponseBody().write(body, 0, body.length / 2);
            exchange.getResponseBody().flush();
            exchange.getResponseBody().write(body, body.length / 2, body.length - body.length / 2);
        }
        exchange.close();
        synchronized (log) {
            log.write(exchange.getRequestMethod() + " " + path + " " + status + " " + exchange.getRemoteAddress().getPort() + "\n");
            log.flush();
        }
    }
}
