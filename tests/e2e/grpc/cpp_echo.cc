// libgrpc++ as server and client, without generated code.
//
//   cpp_echo server --port PORT [--log FILE] [--name NAME]
//   cpp_echo client PORT
//
// The server is that of server.py, in short: it echoes every message of every
// method, keeps "sleep" of the metadata "do", and writes the same log. The
// client plays unary and bidi calls of several sizes and prints "ok".
#include <fcntl.h>
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <thread>

using grpc::ByteBuffer;

static int log_file = -1;
static std::string server_name = "-";

static double monotonic() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<double>(now.tv_sec) +
           static_cast<double>(now.tv_nsec) / 1e9;
}

static std::string metadata(const grpc::GenericCallbackServerContext *context,
                            const char *key) {
    const auto &all = context->client_metadata();
    const auto found = all.find(key);
    return found == all.end()
               ? std::string()
               : std::string(found->second.data(), found->second.length());
}

// Reads a message, writes it back, and so on until the client is done.
class Echo : public grpc::ServerGenericBidiReactor {
  public:
    explicit Echo(grpc::GenericCallbackServerContext *context)
        : id_(metadata(context, "call-id")), method_(context->method()) {
        method_ = method_.substr(method_.rfind('/') + 1);
        note("run");
        const std::string options = metadata(context, "do");
        const size_t at = options.find("\"sleep\":");
        if (at != std::string::npos) {
            sleep_ = atof(options.c_str() + at + strlen("\"sleep\":"));
        }
        StartRead(&message_);
    }
    void OnReadDone(bool ok) override {
        if (!ok) {
            note(cancelled_ ? "cancelled" : "end");
            Finish(cancelled_ ? grpc::Status::CANCELLED : grpc::Status::OK);
            return;
        }
        if (sleep_ > 0) {
            usleep(static_cast<useconds_t>(sleep_ * 1e6));
        }
        StartWrite(&message_);
    }
    void OnWriteDone(bool) override { StartRead(&message_); }
    void OnCancel() override { cancelled_ = true; }
    void OnDone() override { delete this; }

  private:
    void note(const char *what) const {
        if (log_file < 0) {
            return;
        }
        char line[512];
        const int size = snprintf(
            line, sizeof line, "%s %s %d %.6f %s %s\n",
            id_.empty() ? "-" : id_.c_str(), method_.c_str(),
            static_cast<int>(getpid()), monotonic(), what, server_name.c_str());
        if (write(log_file, line, static_cast<size_t>(size)) != size) {
            abort();
        }
    }

    std::string id_, method_;
    ByteBuffer message_;
    double sleep_ = 0;
    std::atomic<bool> cancelled_{false};
};

class Service : public grpc::CallbackGenericService {
    grpc::ServerGenericBidiReactor *CreateReactor(
        grpc::GenericCallbackServerContext *context) override {
        return new Echo(context);
    }
};

static int serve(std::map<std::string, std::string> options) {
    sigset_t ends;
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &ends, nullptr);
    if (options.count("--log")) {
        log_file = open(options["--log"].c_str(), O_WRONLY | O_APPEND | O_CREAT,
                        0644);
    }
    if (options.count("--name")) {
        server_name = options["--name"];
    }
    if (options.count("--at")) {
        const double left = atof(options["--at"].c_str()) - monotonic();
        if (left > 0) {
            usleep(static_cast<useconds_t>(left * 1e6));
        }
    }
    Service service;
    grpc::ServerBuilder builder;
    builder.SetMaxReceiveMessageSize(-1);
    builder.AddListeningPort("127.0.0.1:" + options["--port"],
                             grpc::InsecureServerCredentials());
    builder.RegisterCallbackGenericService(&service);
    const auto server = builder.BuildAndStart();
    if (!server) {
        return 1;
    }
    puts("ready");
    fflush(stdout);
    int number;
    sigwait(&ends, &number);
    server->Shutdown(std::chrono::system_clock::now() +
                     std::chrono::seconds(10));
    return 0;
}

static ByteBuffer bytes(const std::string &text) {
    const grpc::Slice slice(text);
    return ByteBuffer(&slice, 1);
}

static std::string text_of(const ByteBuffer &buffer) {
    grpc::Slice slice;
    if (!buffer.DumpToSingleSlice(&slice).ok()) {
        abort();
    }
    return std::string(reinterpret_cast<const char *>(slice.begin()),
                       slice.size());
}

// `times` messages to and fro on one stream; a unary call is one of them.
static bool talk(grpc::GenericStub *stub, const char *method, size_t size,
                 int times) {
    grpc::ClientContext context;
    grpc::CompletionQueue queue;
    void *tag;
    bool ok;
    context.AddMetadata("call-id", "cpp");
    const auto stream = stub->PrepareCall(&context, method, &queue);
    const auto next = [&] { return queue.Next(&tag, &ok) && ok; };
    stream->StartCall(&tag);
    bool good = next();
    const std::string sent(size, 'x');
    for (int i = 0; good && i < times; i++) {
        stream->Write(bytes(sent), &tag);
        good = next();
        ByteBuffer reply;
        stream->Read(&reply, &tag);
        good = good && next() && text_of(reply) == sent;
    }
    stream->WritesDone(&tag);
    good = next() && good;
    grpc::Status status;
    stream->Finish(&status, &tag);
    good = next() && good && status.ok();
    if (!good) {
        printf("%s of %zu: %d %s\n", method, size,
               static_cast<int>(status.error_code()),
               status.error_message().c_str());
    }
    return good;
}

static int play(const char *port) {
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(-1);
    grpc::GenericStub stub(grpc::CreateCustomChannel(
        std::string("127.0.0.1:") + port, grpc::InsecureChannelCredentials(),
        arguments));
    for (const size_t size : {0ul, 1ul, 1ul << 20, 64ul << 20}) {
        if (!talk(&stub, "/echo.Echo/Bidi", size, size > 1 << 20 ? 1 : 3) ||
            !talk(&stub, "/echo.Echo/BidiOnce", size, 1)) {
            return 1;
        }
    }
    puts("ok");
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 3 && strcmp(argv[1], "client") == 0) {
        return play(argv[2]);
    }
    std::map<std::string, std::string> options;
    for (int i = 2; i + 1 < argc; i += 2) {
        options[argv[i]] = argv[i + 1];
    }
    return serve(options);
}
