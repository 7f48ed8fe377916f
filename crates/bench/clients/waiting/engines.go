package main

import (
	"context"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/twmb/franz-go/pkg/kgo"
)

type kafkaPublisher struct {
	client    *kgo.Client
	topic     string
	partition int32
}

// connectKafka opens one client, and so one connection, per publisher; acks=all, no linger.
func connectKafka(asked shape) ([]publisher, error) {
	var opened []publisher
	for index := range asked.clients {
		client, err := kgo.NewClient(
			kgo.SeedBrokers(asked.address),
			kgo.RequiredAcks(kgo.AllISRAcks()),
			kgo.DisableIdempotentWrite(),
			kgo.ProducerLinger(0),
			kgo.ProducerBatchCompression(kgo.NoCompression()),
			kgo.RecordPartitioner(kgo.ManualPartitioner()),
		)
		if err != nil {
			return opened, err
		}
		opened = append(opened, &kafkaPublisher{client, asked.topic, int32(index % asked.partitions)})
	}
	return opened, nil
}

func (publisher *kafkaPublisher) publish(ctx context.Context, value []byte) error {
	record := &kgo.Record{Topic: publisher.topic, Partition: publisher.partition, Value: value}
	return publisher.client.ProduceSync(ctx, record).FirstErr()
}

func (publisher *kafkaPublisher) close() { publisher.client.Close() }

type rabbitPublisher struct {
	connection *amqp.Connection
	channel    *amqp.Channel
	queue      string
}

// connectRabbit opens one channel per publisher, on so many connections, and one durable quorum queue.
func connectRabbit(asked shape, connections int) ([]publisher, error) {
	var opened []publisher
	var open []*amqp.Connection
	for range connections {
		connection, err := amqp.Dial("amqp://guest:guest@" + asked.address + "/")
		if err != nil {
			return opened, err
		}
		open = append(open, connection)
	}
	for index := range asked.clients {
		connection := open[index%len(open)]
		channel, err := connection.Channel()
		if err != nil {
			return opened, err
		}
		one := &rabbitPublisher{connection, channel, asked.topic}
		opened = append(opened, one)
		if index == 0 {
			arguments := amqp.Table{"x-queue-type": "quorum"}
			if _, err := channel.QueueDeclare(asked.topic, true, false, false, false, arguments); err != nil {
				return opened, err
			}
		}
		if err := channel.Confirm(false); err != nil {
			return opened, err
		}
	}
	return opened, nil
}

func (publisher *rabbitPublisher) publish(ctx context.Context, value []byte) error {
	message := amqp.Publishing{DeliveryMode: amqp.Persistent, Body: value}
	confirm, err := publisher.channel.PublishWithDeferredConfirmWithContext(ctx, "", publisher.queue, true, false, message)
	if err != nil {
		return err
	}
	confirmed, err := confirm.WaitContext(ctx)
	if err == nil && !confirmed {
		err = fmt.Errorf("the server refused a message")
	}
	return err
}

func (publisher *rabbitPublisher) close() { _ = publisher.connection.Close() }

type natsPublisher struct {
	connection *nats.Conn
	stream     jetstream.JetStream
	subject    string
}

// connectNats opens one connection per publisher, and one stream on files.
func connectNats(asked shape) ([]publisher, error) {
	var opened []publisher
	for index := range asked.clients {
		connection, err := nats.Connect("nats://" + asked.address)
		if err != nil {
			return opened, err
		}
		stream, err := jetstream.New(connection)
		if err != nil {
			return opened, err
		}
		opened = append(opened, &natsPublisher{connection, stream, asked.topic})
		if index == 0 {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			_, err = stream.CreateStream(ctx, jetstream.StreamConfig{
				Name: asked.topic, Subjects: []string{asked.topic}, Storage: jetstream.FileStorage, Replicas: 1,
			})
			cancel()
			if err != nil {
				return opened, err
			}
		}
	}
	return opened, nil
}

func (publisher *natsPublisher) publish(ctx context.Context, value []byte) error {
	_, err := publisher.stream.Publish(ctx, publisher.subject, value)
	return err
}

func (publisher *natsPublisher) close() { publisher.connection.Close() }
