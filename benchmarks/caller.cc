// The calling side of `serving`, compiled: one load on one port, then what was seen of it, as JSON. It does what
// `serving_calls.py` does, and leaves more of the processor to an engine on the same cores.
//
//     caller PORT METHOD SECONDS CALLS_PER_S IN_FLIGHT USERS K QUERIES
//
// With 0 calls per second, so many callers each call again once answered, or a little later where refused; else calls
// start at random times, whether or not those before are answered, and an answer's delay counts from the time at which
// its call was to start. With the method RecommendBatch a call has so many QUERIES.

#include <grpcpp/alarm.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

constexpr double kWarmSeconds = 0.3;  // what is seen at the start does not count
constexpr std::chrono::milliseconds kBackOff(20);
constexpr std::chrono::seconds kTimeout(10);

double SecondsBetween(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

// A field of the wire format: its number, that it has a length, the length, and what it holds.
std::string Field(int number, const std::string& content) {
  std::string field(1, static_cast<char>(number << 3 | 2));
  size_t length = content.size();
  for (; length >= 0x80; length >>= 7) field.push_back(static_cast<char>(length | 0x80));
  field.push_back(static_cast<char>(length));
  return field + content;
}

// Calls of one method, and what became of them. Answers stay bytes: what reading them costs is no matter here.
class Load {
 public:
  Load(const std::shared_ptr<grpc::Channel>& channel, const std::string& method, int users, int k, int queries)
      : stub_(channel), is_batch_(method == "RecommendBatch"), k_(k), queries_(queries), user_(0, users - 1) {
    method_ = method == "Echo" ? "/ousel.v1.Benchmark/Echo" : "/ousel.v1.RecommenderService/" + method;
  }

  void RunInTurn(int callers, double seconds) {
    Begin(seconds);
    in_turn_ = true;
    for (int caller = 0; caller < callers; ++caller) Start(Clock::now());
    while (open_ > 0) TakeNext(Clock::now() + std::chrono::seconds(1));
  }

  void RunAtRandom(double per_s, double seconds) {
    Begin(seconds);
    std::exponential_distribution<double> gap(per_s);
    for (auto due = After(began_, gap(draw_)); due < end_; due = After(due, gap(draw_))) {
      while (Clock::now() < due) TakeNext(due);
      Start(due);
    }
    while (open_ > 0) TakeNext(Clock::now() + std::chrono::seconds(1));
  }

  // Prints what was seen, and says whether no call ended in any other way than answered or refused.
  bool Print() {
    const double seconds = SecondsBetween(began_, Clock::now()) - kWarmSeconds;
    const int answered = outcomes_[grpc::StatusCode::OK], refused = outcomes_[grpc::StatusCode::RESOURCE_EXHAUSTED];
    int calls = 0;
    for (const auto& [code, count] : outcomes_) calls += count;
    for (const auto& [code, count] : outcomes_) {
      if (code != grpc::StatusCode::OK && code != grpc::StatusCode::RESOURCE_EXHAUSTED) {
        std::fprintf(stderr, "%d calls failed with code %d: %s\n", count, code, messages_[code].c_str());
      }
    }
    std::printf("{\"seconds\": %f, \"answered\": %d, \"refused\": %d, \"refused_with_hint\": %d, \"delays_ms\": [",
                seconds, answered, refused, hinted_);
    for (size_t at = 0; at < delays_ms_.size(); ++at) std::printf(at == 0 ? "%.3f" : ", %.3f", delays_ms_[at]);
    std::printf("]}\n");
    return calls == answered + refused;
  }

 private:
  struct Call {
    Clock::time_point due;
    grpc::ClientContext context;
    grpc::ByteBuffer answer;
    grpc::Status status;
    std::unique_ptr<grpc::ClientAsyncResponseReader<grpc::ByteBuffer>> reader;
    std::unique_ptr<grpc::Alarm> rest;  // of a caller that was refused
  };

  static Clock::time_point After(Clock::time_point time, double seconds) {
    return time + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  }

  void Begin(double seconds) {
    began_ = Clock::now();
    end_ = After(began_, seconds);
  }

  grpc::ByteBuffer Request() {
    std::string request;
    for (int query = 0; query < (is_batch_ ? queries_ : 1); ++query) {
      const std::string user = Field(1, "user-" + std::to_string(user_(draw_)));
      std::string length(1, '\x18');  // k, field 3, a number below 128 as a rule
      int rest = k_;
      for (; rest >= 0x80; rest >>= 7) length.push_back(static_cast<char>(rest | 0x80));
      length.push_back(static_cast<char>(rest));
      request += Field(1, user + length);
    }
    grpc::Slice slice(request);
    return grpc::ByteBuffer(&slice, 1);
  }

  void Start(Clock::time_point due) {
    auto* call = new Call;
    call->due = due;
    call->context.set_deadline(std::chrono::system_clock::now() + kTimeout);
    call->reader = stub_.PrepareUnaryCall(&call->context, method_, Request(), &queue_);
    call->reader->StartCall();
    call->reader->Finish(&call->answer, &call->status, call);
    ++open_;
  }

  // Handles what comes next, or nothing before `until`.
  void TakeNext(Clock::time_point until) {
    void* tag = nullptr;
    bool ok = false;
    const auto wait = std::chrono::duration_cast<std::chrono::system_clock::duration>(until - Clock::now());
    if (queue_.AsyncNext(&tag, &ok, std::chrono::system_clock::now() + wait) != grpc::CompletionQueue::GOT_EVENT) return;
    std::unique_ptr<Call> call(static_cast<Call*>(tag));
    --open_;
    const auto now = Clock::now();
    const bool was_refused = call->status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED;
    if (call->rest == nullptr) {
      Count(*call, now);
      if (in_turn_ && was_refused && now < end_) {
        call->rest = std::make_unique<grpc::Alarm>();
        Call* resting = call.release();
        ++open_;
        resting->rest->Set(&queue_, std::chrono::system_clock::now() + kBackOff, resting);
        return;
      }
    }
    if (in_turn_ && now < end_) Start(now);
  }

  void Count(const Call& call, Clock::time_point now) {
    if (SecondsBetween(began_, call.due) < kWarmSeconds) return;
    ++outcomes_[call.status.error_code()];
    messages_[call.status.error_code()] = call.status.error_message();
    if (call.status.ok()) delays_ms_.push_back(1000 * SecondsBetween(call.due, now));
    hinted_ += call.status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED &&
               call.context.GetServerTrailingMetadata().count("grpc-retry-pushback-ms") > 0;
  }

  grpc::GenericStub stub_;
  grpc::CompletionQueue queue_;
  const bool is_batch_;
  const int k_, queries_;
  std::string method_;
  std::mt19937_64 draw_{0};
  std::uniform_int_distribution<int> user_;
  bool in_turn_ = false;
  int open_ = 0;  // calls on their way, and callers that rest
  Clock::time_point began_, end_;
  std::map<grpc::StatusCode, int> outcomes_;
  std::map<grpc::StatusCode, std::string> messages_;  // the last of each
  int hinted_ = 0;
  std::vector<double> delays_ms_;
};

}  // namespace

int main(int count, char** arguments) {
  if (count != 9) {
    std::fprintf(stderr, "caller PORT METHOD SECONDS CALLS_PER_S IN_FLIGHT USERS K QUERIES\n");
    return 2;
  }
  const std::string address = std::string("127.0.0.1:") + arguments[1];
  const double seconds = std::atof(arguments[3]), per_s = std::atof(arguments[4]);
  const auto channel = grpc::CreateChannel(address, grpc::InsecureChannelCredentials());
  if (!channel->WaitForConnected(std::chrono::system_clock::now() + kTimeout)) {
    std::fprintf(stderr, "no server answers at %s\n", address.c_str());
    return 1;
  }
  Load load(channel, arguments[2], std::atoi(arguments[6]), std::atoi(arguments[7]), std::atoi(arguments[8]));
  if (per_s > 0) {
    load.RunAtRandom(per_s, seconds);
  } else {
    load.RunInTurn(std::atoi(arguments[5]), seconds);
  }
  return load.Print() ? 0 : 1;
}
