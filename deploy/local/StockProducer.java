import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.Future;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Kafka's own producer, driven by lines: see stock_producers.py.
 *
 * <p>Arguments are settings, as name=value. Lines of the input: SEND topic key value header, each but the topic in base64
 * or "-" for none; FLUSH, which prints "partition offset" of each record since the last one and then "done"; BEGIN, COMMIT
 * and ABORT, which print "done".
 */
public class StockProducer {
    public static void main(String[] arguments) throws Exception {
        Properties settings = new Properties();
        for (String argument : arguments) {
            String[] parts = argument.split("=", 2);
            settings.put(parts[0], parts[1]);
        }
        boolean transactional = settings.containsKey("transactional.id");
        try (KafkaProducer<byte[], byte[]> producer =
                new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer())) {
            if (transactional) {
                producer.initTransactions();
            }
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
            System.out.println("done");
            for (String line = input.readLine(); line != null; line = input.readLine()) {
                String[] words = line.split(" ");
                switch (words[0]) {
                    case "SEND" -> {
                        ProducerRecord<byte[], byte[]> record =
                                new ProducerRecord<>(words[1], bytes(words[2]), bytes(words[3]));
                        if (bytes(words[4]) != null) {
                            record.headers().add("number", bytes(words[4]));
                        }
                        sent.add(producer.send(record));
                        continue;
                    }
                    case "FLUSH" -> {
                        producer.flush();
                        for (Future<RecordMetadata> future : sent) {
                            RecordMetadata where = future.get();
                            System.out.println(where.partition() + " " + where.offset());
                        }
                        sent.clear();
                    }
                    case "BEGIN" -> producer.beginTransaction();
                    case "COMMIT" -> producer.commitTransaction();
                    case "ABORT" -> producer.abortTransaction();
                    default -> throw new IllegalArgumentException(line);
                }
                System.out.println("done");
            }
        }
    }

    private static byte[] bytes(String word) {
        return word.equals("-") ? null : Base64.getDecoder().decode(word);
    }
}
