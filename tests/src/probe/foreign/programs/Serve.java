// A server on com.sun.net.httpserver: PORT.
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.util.concurrent.Executors;

public class Serve {
    static final String PAGE = "a page that is somewhat longer than what takes its place\n";

    public static void main(String[] args) throws IOException {
        var address = new InetSocketAddress("0.0.0.0", Integer.parseInt(args[0]));
        var server = HttpServer.create(address, 0);
        server.setExecutor(Executors.newCachedThreadPool());
        server.createContext("/", Serve::serve);
        server.start();
    }

    static void serve(HttpExchange exchange) throws IOException {
        var path = exchange.getRequestURI().getPath();
        switch (path.substring(path.lastIndexOf('/') + 1)) {
            case "page" -> whole(exchange, 200, PAGE);
            case "large" -> whole(exchange, 200, "x".repeat(300000));
            case "chunks" -> chunks(exchange);
            default -> whole(exchange, 404, "there is nothing\n");
        }
    }

    static boolean isHead(HttpExchange exchange) {
        return exchange.getRequestMethod().equals("HEAD");
    }

    static void whole(HttpExchange exchange, int code, String text) throws IOException {
        var body = text.getBytes();
        if (isHead(exchange)) {
            exchange.getResponseHeaders().set("Content-Length", String.valueOf(body.length));
            exchange.sendResponseHeaders(code, -1);
        } else {
            exchange.sendResponseHeaders(code, body.length);
            exchange.getResponseBody().write(body);
        }
        exchange.close();
    }

    static void chunks(HttpExchange exchange) throws IOException {
        exchange.sendResponseHeaders(200, isHead(exchange) ? -1 : 0);
        for (int i = 0; i < 10 && !isHead(exchange); i++) {
            exchange.getResponseBody().write("y".repeat(200).getBytes());
            exchange.getResponseBody().flush();
        }
        exchange.close();
    }
}
