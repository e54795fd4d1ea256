import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;

/** java.net.http: {@code Client BASE COUNT}. */
final class Client {
    private static final int[] STATUSES = {200, 404, 500, 503, 204, 304};

    public static void main(String[] arguments) throws Exception {
        HttpClient client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
        for (int i = 0; i < Integer.parseInt(arguments[1]); i++) {
            show(client, "GET", arguments[0], "/fixed/" + i, null);
            show(client, "GET", arguments[0], "/chunked/" + i, null);
            show(client, "POST", arguments[0], "/echo", "y".repeat(i + 1));
            show(client, "GET", arguments[0], "/status/" + STATUSES[i % 6], null);
        }
    }

    private static void show(HttpClient client, String method, String base, String path, String body) throws Exception {
        HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(base + path));
        request.method(method, body == null ? HttpRequest.BodyPublishers.noBody() : HttpRequest.BodyPublishers.ofString(body));
        HttpResponse<byte[]> answer = client.send(request.build(), HttpResponse.BodyHandlers.ofByteArray());
        System.out.println(method + " " + path + " " + answer.statusCode() + " " + answer.body().length);
    }
}
