// A client on java.net.http: METHOD PATH… -- BASE….
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.time.Duration;
import java.util.Arrays;
import java.util.Base64;
import java.util.List;

public class Ask {
    public static void main(String[] args) throws Exception {
        List<String> words = Arrays.asList(args);
        int end = words.indexOf("--");
        var client = HttpClient.newHttpClient();
        for (var base : words.subList(end + 1, words.size())) {
            for (int i = 0; i < end; i += 2) {
                ask(client, words.get(i), base + words.get(i + 1));
            }
        }
        System.exit(0);
    }

    static void ask(HttpClient client, String method, String url) throws Exception {
        var body = method.equals("POST") ? BodyPublishers.ofString("hello") : BodyPublishers.noBody();
        var request = HttpRequest.newBuilder(URI.create(url))
            .timeout(Duration.ofSeconds(10))
            .method(method, body)
            .build();
        var response = client.send(request, BodyHandlers.ofByteArray());
        var headers = response.headers();
        System.out.println(String.join("\t",
            String.valueOf(response.statusCode()),
            headers.firstValue("Content-Length").orElse("-"),
            headers.firstValue("X-New").orElse("-"),
            Base64.getEncoder().encodeToString(response.body())));
    }
}
